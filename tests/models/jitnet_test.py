"""JITNet against the published counts and an independent torch network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ojd.models import jitnet
from tests.reference import jitnet_torch

SIZES = [(96, 160), (97, 131)]


def _num_parameters(model):
  frame = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), frame)
  return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))


@pytest.mark.parametrize(
  ("num_classes", "width", "num_units", "expected"),
  [
    (23, 0.5, 1, 752_383),
    (17, 0.5, 1, 752_185),
    (9, 0.5, 1, 747_137),
    (81, 0.5, 1, 754_297),
    (2, 0.5, 1, 744_682),
    (4, 0.5, 1, 744_700),
    (23, 0.25, 1, 219_135),
    (23, 0.75, 1, 1_682_083),
    (23, 1.0, 1, 2_981_063),
    (23, 0.5, 2, 1_446_463),
    (81, 1.0, 2, 5_753_537),
  ],
)
def test_number_of_parameters(num_classes, width, num_units, expected):
  model = jitnet.JITNet(num_classes, width, num_units)
  assert _num_parameters(model) == expected


def _relative_error(a, b):
  return np.linalg.norm(a - b) / np.linalg.norm(b)


def _student(height, width, seed=0):
  model = jitnet.JITNet(num_classes=5)
  rng = np.random.default_rng(seed)
  frames = rng.integers(0, 256, (1, height, width, 3)).astype(np.uint8)
  params = jax.jit(model.init)(jax.random.key(3), frames)["params"]
  # Norms and biases away from ones and zeros, so that each of them matters.
  params = jax.tree.map(
    lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params
  )
  return model, params, frames


def _weights(frames):
  """Of each logit in the loss: so its gradient reaches every parameter."""
  rng = np.random.default_rng(1)
  return rng.standard_normal((*frames.shape[:3], 5))


@functools.partial(jax.jit, static_argnums=0)
def _logits_and_gradients(model, params, frames, weights):
  def loss_fn(params):
    logits = model.apply({"params": params}, frames)
    return jnp.mean(logits * weights.astype(logits.dtype)), logits

  grads, logits = jax.grad(loss_fn, has_aux=True)(params)
  return logits, grads


def _in_double(params):
  return jax.tree.map(lambda p: np.asarray(p, np.float64), params)


def _theirs(params, frames, weights):
  params = jitnet_torch.to_torch(params, requires_grad=True)
  logits = jitnet_torch.logits(params, frames)
  (logits * torch.tensor(weights, dtype=logits.dtype)).mean().backward()
  return logits.detach().numpy(), jitnet_torch.gradients(params)


def _worst(grads, expected):
  # A norm undoes what is constant over its channel, so the biases before one
  # have no gradient but rounding: measured against the largest, not their own.
  largest = max(np.linalg.norm(g) for g in jax.tree.leaves(expected))
  errors = jax.tree.map(
    lambda a, b: float(
      np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3 * largest)
    ),
    grads,
    expected,
  )
  return max(jax.tree.leaves(errors)), errors


@pytest.mark.parametrize("size", SIZES)
def test_logits_and_gradients_equal_torch(size):
  model, params, frames = _student(*size)
  weights = _weights(frames)
  logits = jax.jit(lambda p: model.apply({"params": p}, frames))(params)
  # In single precision a ReLU whose input is nearly zero may be open in one
  # and closed in the other, so the gradients are compared in double.
  with jax.enable_x64(True):
    params = _in_double(params)
    double = frames.astype(np.float64)
    exact, grads = _logits_and_gradients(model, params, double, weights)
    expected, expected_grads = _theirs(params, frames, weights)

    assert exact.dtype == np.float64
    assert _relative_error(exact, expected) < 1e-9
    worst, errors = _worst(grads, expected_grads)
    assert worst < 1e-9, errors
  assert logits.dtype == np.float32
  assert _relative_error(logits, expected) < 1e-4


@pytest.mark.slow  # two gradients of the whole network
def test_gradients_in_single_precision_are_those_in_double():
  errors = []
  for seed in range(3):
    model, params, frames = _student(64, 96, seed)
    weights = _weights(frames)
    single = weights.astype(np.float32)
    _, grads = _logits_and_gradients(model, params, frames, single)
    with jax.enable_x64(True):
      double = frames.astype(np.float64)
      _, exact = _logits_and_gradients(
        model, _in_double(params), double, weights
      )
    errors.append(_worst(grads, jax.tree.map(np.asarray, exact))[0])
  # One of three frames may have a ReLU that opens in one alone.
  assert np.median(errors) < 1e-4, errors


def test_resizing_the_logits_changes_nothing():
  model, params, frames = _student(64, 72)
  late = model.apply({"params": params}, frames)
  published = model.clone(resize_logits=False).apply({"params": params}, frames)
  np.testing.assert_allclose(late, published, atol=2e-5 * np.abs(late).max())


def test_jit_equals_no_jit_and_compiles_once():
  model, params, frames = _student(33, 47)
  traces = []

  @jax.jit
  def apply(params, frames):
    traces.append(None)
    return model.apply({"params": params}, frames)

  first = apply(params, frames)
  apply(jax.tree.map(lambda p: 2 * p, params), frames)
  assert len(traces) == 1
  plain = model.apply({"params": params}, frames)
  np.testing.assert_allclose(first, plain, atol=1e-5 * np.abs(plain).max())


def test_frames_of_a_batch_do_not_touch_each_other():
  model, params, frames = _student(64, 72)
  other = 255 - frames
  both = model.apply({"params": params}, np.concatenate([frames, other]))
  alone = model.apply({"params": params}, other)
  assert _relative_error(both[1:], alone) < 1e-4
  assert _relative_error(both[:1], alone) > 0.1
