"""Skip-Convolutions beside numpy loops over every output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from ojd.errors import UserError
from ojd.models.delta import skip
from ojd.models.delta.conversion import ConvLayer, Layer
from tests.reference.compare import close

HEIGHT, WIDTH, NUM_IN, NUM_OUT = 7, 10, 2, 3


def _site(size=3, stride=1):
  out = (-(-HEIGHT // stride), -(-WIDTH // stride), NUM_OUT)
  return ConvLayer(
    ("a",), (size, size), stride, 1, (HEIGHT, WIDTH, NUM_IN), out
  )


SITES = [_site(), _site(stride=2), _site(1), _site(5)]


def _inputs(num_frames=6):
  """Most pixels still or nearly so, some that jump."""
  rng = np.random.default_rng(0)
  shape = (num_frames, 1, HEIGHT, WIDTH, NUM_IN)
  jumps = rng.random((*shape[:-1], 1)) < 0.12
  steps = 0.02 + jumps * rng.standard_normal(shape)
  steps[0] = rng.standard_normal(shape[1:])
  return np.cumsum(steps, 0).astype(np.float32)


def _layer(conv):
  shape = (*conv.kernel_size, NUM_IN, NUM_OUT)
  kernel = np.random.default_rng(1).standard_normal(shape, np.float32)
  return Layer(conv, jnp.asarray(kernel), jnp.arange(1.0, 4), {})


def _windows(x, conv):
  """[P, Q, KH, KW, I] of one image."""
  k, half = conv.kernel_size[0], conv.kernel_size[0] // 2
  padded = np.pad(x[0], ((half, half), (half, half), (0, 0)))
  windows = sliding_window_view(padded, (k, k), axis=(0, 1))
  return np.moveaxis(windows[:: conv.stride, :: conv.stride], 2, -1)


def _whole(x, layer):
  kernel = np.asarray(layer.kernel)
  out = np.einsum("pqhwi,hwio->pqo", _windows(x, layer.conv), kernel)
  return out if layer.bias is None else out + np.asarray(layer.bias)


def _run(rule, layer, inputs):
  """The outputs, what was open, and what is kept in the end."""
  first = jnp.asarray(_whole(inputs[0], layer), jnp.float32)[None]
  kept = rule.keep(jnp.asarray(inputs[0]), first, layer.conv)
  change = jax.jit(lambda kept, x: rule.change(layer, kept, x, None))
  outputs, shares = [first[0]], []
  for x in inputs[1:]:
    changed = change(kept, x)
    kept = changed.kept
    outputs.append(changed.z[0])
    shares.append(float(changed.aux["open"]))
    np.testing.assert_allclose(
      changed.gmac, shares[-1] * layer.conv.macs / 1e9, rtol=1e-5
    )
  assert change._cache_size() == 1
  return np.stack(outputs), shares, kept


@pytest.mark.parametrize("eps", [0.0, 0.08])
@pytest.mark.parametrize("conv", SITES)
def test_forgetting_is_the_published_loop(conv, eps):
  layer, inputs = _layer(conv), _inputs()
  outputs, shares, _ = _run(skip.skip(skip.by_norm(eps)), layer, inputs)
  z = _whole(inputs[0], layer)
  for t, r in enumerate(_windows(x, conv) for x in np.diff(inputs, axis=0)):
    is_open = np.abs(r).mean((2, 3, 4)) > eps
    delta = np.einsum("pqhwi,hwio->pqo", r, np.asarray(layer.kernel))
    z = z + is_open[..., None] * delta
    np.testing.assert_allclose(outputs[t + 1], z, atol=1e-4)
    assert shares[t] == pytest.approx(is_open.mean())
  assert eps == 0 or 0 < min(shares) <= max(shares) < 1


@pytest.mark.parametrize("eps", [0.0, 0.12])
@pytest.mark.parametrize("conv", SITES)
def test_sums_are_kept_for_each_output(conv, eps):
  """What an output shows is of the frame that it was last computed on."""
  layer, inputs = _layer(conv), _inputs()
  layer = layer if eps else layer._replace(bias=None)
  rule = skip.skip(skip.by_norm(eps), memory="sum")
  outputs, shares, _ = _run(rule, layer, inputs)
  whole = np.array([_whole(x, layer) for x in inputs])
  seen = np.zeros(conv.shape_out[:2], int)
  pending = np.zeros(conv.shape_out[:2])
  reach = np.abs(np.asarray(layer.kernel)).max()
  taps = conv.kernel_size[0] ** 2 * NUM_IN
  for t, step in enumerate(np.diff(inputs, axis=0), 1):
    pending += np.abs(_windows(step, conv)).mean((2, 3, 4))
    is_open = pending > eps
    seen[is_open], pending[is_open] = t, 0
    expected = whole[seen, *np.indices(seen.shape)]
    np.testing.assert_allclose(outputs[t], expected, atol=1e-4)
    assert shares[t - 1] == pytest.approx(is_open.mean())
    # The promise: never further off than the threshold allows.
    assert np.abs(outputs[t] - whole[t]).max() <= eps * taps * reach + 1e-4


@pytest.mark.parametrize("eps", [0.0, 0.15])
@pytest.mark.parametrize("conv", SITES)
def test_reference_is_what_the_outputs_are_of(conv, eps):
  layer, inputs = _layer(conv), _inputs()
  rule = skip.skip(skip.by_norm(eps), memory="reference")
  reference = inputs[0].copy()
  outputs, shares, kept = _run(rule, layer, inputs)
  for t in range(1, len(inputs)):
    is_told = np.abs(inputs[t] - reference).mean(-1, keepdims=True) > eps
    reference = np.where(is_told, inputs[t], reference)
    np.testing.assert_allclose(outputs[t], _whole(reference, layer), atol=1e-4)
    is_read = _windows(np.repeat(is_told, NUM_IN, -1), conv).any((2, 3, 4))
    assert shares[t - 1] == pytest.approx(is_read.mean())
  np.testing.assert_allclose(kept.x, reference, atol=1e-5)
  assert np.abs(inputs[-1] - reference).mean(-1).max() <= eps + 1e-5


def test_norms_of_outputs_and_by_height_are_scaled():
  conv = _site()
  layer, x = _layer(conv), jnp.asarray(np.abs(_inputs(1)[0]))
  plain = skip.by_norm(0.1).logit(layer, x) + 0.1
  weighed = skip.by_norm(0.1, of_output=True).logit(layer, x) + 0.1
  by_height = skip.by_norm(0.1, by_height=True).logit(layer, x) + 0.1
  mean = np.abs(np.asarray(layer.kernel)).mean()
  np.testing.assert_allclose(weighed, plain * mean, rtol=1e-4)
  np.testing.assert_allclose(by_height, plain * NUM_IN / HEIGHT, rtol=1e-4)


@pytest.mark.parametrize("side", [2, 4])
def test_blocks_open_where_one_of_their_pixels_does(side):
  is_open = np.random.default_rng(0).random((1, 7, 10, 1)) < 0.1
  found = skip.by_blocks(jnp.asarray(is_open, jnp.float32), side)
  for i, j in np.ndindex(7, 10):
    y, x = i // side * side, j // side * side
    block = is_open[0, y : y + side, x : x + side]
    assert found[0, i, j, 0] == block.any()


def test_gumbel_gate_is_a_convolution_of_the_change():
  conv = _site(stride=2)
  rule = skip.skip(skip.by_gumbel())
  layer = _layer(conv)
  weights = rule.begin(jax.random.key(0), layer)
  assert weights["gate"].shape == (3, 3, NUM_IN, 1)
  np.testing.assert_allclose(weights["gate_bias"], 0.6)
  weights["gate_bias"] = jnp.zeros((1,))
  layer, inputs = layer._replace(weights=weights), _inputs(2)
  kept = rule.keep(inputs[0], jnp.zeros((1, *conv.shape_out)), conv)
  changed = rule.change(layer, kept, inputs[1], None)
  r = np.abs(_windows(inputs[1] - inputs[0], conv))
  logit = np.einsum("pqhwi,hwio->pqo", r, np.asarray(weights["gate"]))
  assert float(changed.aux["open"]) == pytest.approx((logit > 0).mean())
  work = (logit > 0).mean() * conv.macs + logit.size * 9 * NUM_IN
  np.testing.assert_allclose(changed.gmac, work / 1e9, rtol=1e-5)

  def opened(weights):
    drawn = layer._replace(weights=weights), kept, inputs[1], jax.random.key(1)
    return rule.change(*drawn).aux["open"]

  # What is not open pulls as well: the gradient is the soft sample's.
  assert np.abs(jax.grad(opened)(weights)["gate"]).max() > 0


def test_norm_gates_are_open_in_training():
  conv = _site()
  layer, inputs = _layer(conv), _inputs(2)
  rule = skip.skip(skip.by_norm(1e6))
  first = jnp.asarray(_whole(inputs[0], layer), jnp.float32)[None]
  kept = rule.keep(inputs[0], first, conv)
  found = rule.change(layer, kept, inputs[1], jax.random.key(0)).z[0]
  np.testing.assert_allclose(found, _whole(inputs[1], layer), atol=1e-4)
  closed = rule.change(layer, kept, inputs[1], None).z
  np.testing.assert_array_equal(closed, first)
  twice = skip.skip(skip.by_norm(0.0), bias_twice=True)
  extra = twice.change(layer, kept, inputs[1], jax.random.key(0)).z[0] - found
  close(extra, np.broadcast_to(layer.bias, extra.shape), 0, 1e-4)


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: skip.by_norm(-0.1), "eps=-0.1: at least 0"),
    (lambda: skip.skip(skip.by_norm(), memory="all"), "memory=all: one of"),
    (lambda: skip.skip(skip.by_norm(), block=3), "block=3: one of"),
    (lambda: skip.skip(skip.by_gumbel(), memory="sum"), "norm alone"),
  ],
)
def test_bad_requests_are_refused(make, words):
  with pytest.raises(UserError, match=words):
    make()
