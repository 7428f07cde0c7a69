"""Convolution against torch, its gradients in loops and outside of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax import lax

from ojd.models import convolution

SHAPES = [  # height, width, channels in and out, kernel, stride
  (9, 12, 3, 5, (3, 3), 1),
  (12, 9, 3, 5, (3, 3), 2),
  (7, 7, 4, 2, (3, 3), 2),
  (8, 5, 4, 3, (1, 3), 1),
  (8, 5, 4, 3, (3, 1), 1),
  (8, 6, 4, 3, (1, 1), 1),
  (9, 6, 4, 3, (1, 1), 2),
  (9, 12, 3, 5, (3, 1), (2, 1)),
  (9, 7, 3, 5, (1, 3), (1, 2)),
]


def _draw(shape, seed):
  rng = np.random.default_rng(seed)
  return rng.standard_normal(shape, dtype=np.float32)


def _case(height, width, num_in, num_out, kernel, stride, batch=2):
  x = _draw((batch, height, width, num_in), 0)
  w = _draw((*kernel, num_in, num_out), 1)
  down, across = (stride, stride) if isinstance(stride, int) else stride
  out = (batch, -(-height // down), -(-width // across), num_out)
  return x, w, _draw(out, 2)


def _torch_conv(x, w, g, kernel, stride, **more):
  """Output, input gradient and kernel gradient by torch, as NHWC and HWIO."""
  tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
  tw = torch.tensor(w.transpose(3, 2, 0, 1), requires_grad=True)
  more = {"padding": tuple(k // 2 for k in kernel)} | more
  y = F.conv2d(tx, tw, stride=stride, **more)
  y.backward(torch.tensor(g.transpose(0, 3, 1, 2)))
  return (
    y.detach().numpy().transpose(0, 2, 3, 1),
    tx.grad.numpy().transpose(0, 2, 3, 1),
    tw.grad.numpy().transpose(2, 3, 1, 0),
  )


def _conv_and_gradients(x, w, g, stride):
  y, backward = jax.vjp(lambda x, w: convolution.conv2d(x, w, stride), x, w)
  return (y, *backward(g))


def _assert_close(ours, theirs, tolerance=1e-5):
  for a, b in zip(ours, theirs, strict=True):
    scale = np.abs(b).max()
    np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_and_gradients_equal_torch(shape, jit):
  *_, kernel, stride = shape
  x, w, g = _case(*shape)
  fn = lambda x, w, g: _conv_and_gradients(x, w, g, stride)
  ours = (jax.jit(fn) if jit else fn)(x, w, g)
  _assert_close(ours, _torch_conv(x, w, g, kernel, stride))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5)])
@pytest.mark.parametrize("rate", [1, 2, 6, 9])
def test_dilated_convolution_and_gradients_equal_torch(rate, kernel):
  """Rates at which some taps, or all but the middle one, read no pixel."""
  x, w, g = _case(9, 7, 4, 3, kernel, 1)

  @jax.jit
  def value_and_gradients(x, w, g):
    y, backward = jax.vjp(
      lambda x, w: convolution.dilated_conv2d(x, w, rate), x, w
    )
    return y, *backward(g)

  padding = tuple(k // 2 * rate for k in kernel)
  theirs = _torch_conv(x, w, g, kernel, 1, dilation=rate, padding=padding)
  _assert_close(value_and_gradients(x, w, g), theirs)


@pytest.mark.parametrize("rows", [1, 4, 5, 100])
def test_kernel_gradient_by_bands_equals_torch(monkeypatch, rows):
  # Rows that divide the height, that do not, and more than there are.
  x, w, g = _case(12, 9, 3, 5, (3, 3), 1)
  row_bytes = 2 * (9 + 2) * 3 * 4
  monkeypatch.setattr(convolution, "_MAX_BYTES_UNBANDED", 0)
  monkeypatch.setattr(convolution, "_BAND_BYTES", rows * row_bytes)
  ours = _conv_and_gradients(x, w, g, 1)
  _assert_close(ours, _torch_conv(x, w, g, (3, 3), 1))


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[6]])
def test_gradients_are_the_same_inside_a_loop(shape):
  x, w, g = _case(*shape)
  fn = lambda x: _conv_and_gradients(x, w, g, shape[-1])

  @jax.jit
  def in_loop(x):
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(fn, x))
    body = lambda i, total: jax.tree.map(jnp.add, total, fn(x * (i + 1)))
    return lax.fori_loop(0, 1, body, zeros)

  _assert_close(in_loop(x), fn(x), 1e-6)


def test_vmap_over_kernels_equals_one_by_one():
  x, w, g = _case(9, 12, 3, 5, (3, 3), 2)
  ws = jnp.stack([w, 2 * w, w[::-1]])
  fn = lambda w: _conv_and_gradients(x, w, g, 2)
  together = jax.vmap(fn)(ws)
  for i, w in enumerate(ws):
    _assert_close([y[i] for y in together], fn(w))


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_conv_of_many_lanes_is_that_of_each(shape, axes):
  """Values and gradients; a kernel for every lane, or one for all."""
  x, w, g = _case(*shape)
  many = lambda y, axis: y if axis is None else np.stack([y, 2 * y, y + 1])
  xs, ws, gs = many(x, axes[0]), many(w, axes[1]), many(g, 0)

  def value_and_grads(x, w, g):
    y, backward = jax.vjp(
      lambda x, w: convolution.conv2d(x, w, shape[-1]), x, w
    )
    return y, *backward(g)

  lanes = jax.jit(jax.vmap(value_and_grads, (*axes, 0)))(xs, ws, gs)
  pick = lambda y, axis, i: y if axis is None else y[i]
  for i in range(3):
    alone = value_and_grads(pick(xs, axes[0], i), pick(ws, axes[1], i), gs[i])
    for a, b in zip(lanes, alone, strict=True):
      np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4)
