"""Depthwise convolution and its gradients against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax import lax

from ojd.models import depthwise

SHAPES = [  # height, width, channels, kernel, stride, dilation
  (9, 12, 5, (3, 3), 1, 1),
  (12, 9, 5, (3, 3), 2, 1),
  (7, 7, 4, (3, 3), 2, 1),
  (9, 8, 3, (3, 3), 1, 2),
  (4, 3, 3, (3, 3), 1, 6),  # no tap but the middle one reads a pixel
  (8, 6, 3, (1, 5), 1, 1),
]


def _case(height, width, channels, kernel, stride, dilation):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape, np.float32)
  out = (2, -(-height // stride), -(-width // stride), channels)
  return (
    draw(2, height, width, channels),
    draw(*kernel, 1, channels),
    draw(*out),
  )


def _by_torch(x, w, g, kernel, stride, dilation):
  tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
  tw = torch.tensor(w.transpose(3, 2, 0, 1), requires_grad=True)
  y = F.conv2d(
    tx,
    tw,
    stride=stride,
    padding=tuple(k // 2 * dilation for k in kernel),
    dilation=dilation,
    groups=x.shape[-1],
  )
  y.backward(torch.tensor(g.transpose(0, 3, 1, 2)))
  return (
    y.detach().numpy().transpose(0, 2, 3, 1),
    tx.grad.numpy().transpose(0, 2, 3, 1),
    tw.grad.numpy().transpose(2, 3, 1, 0),
  )


def _value_and_gradients(x, w, g, stride, dilation):
  conv = lambda x, w: depthwise.depthwise_conv2d(x, w, stride, dilation)
  y, backward = jax.vjp(conv, x, w)
  return (y, *backward(g))


def _assert_close(ours, theirs, tolerance=1e-5):
  for a, b in zip(ours, theirs, strict=True):
    scale = max(np.abs(b).max(), 1e-3)
    np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("band_bytes", [1, 700, 1 << 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_equal_torch(monkeypatch, shape, band_bytes):
  """Band by band: a row each, some that do not divide the height, and one."""
  monkeypatch.setattr(depthwise, "_BAND_BYTES", band_bytes)
  *_, kernel, stride, dilation = shape
  x, w, g = _case(*shape)
  fn = jax.jit(lambda *arrays: _value_and_gradients(*arrays, stride, dilation))
  _assert_close(fn(x, w, g), _by_torch(x, w, g, kernel, stride, dilation))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_accelerators_run_is_the_same(shape):
  *_, stride, dilation = shape
  x, w, _ = _case(*shape)
  expected = depthwise.by_taps(x, w, stride, dilation)
  _assert_close([depthwise.grouped(x, w, stride, dilation)], [expected])


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_gradients_are_the_same_inside_a_loop(shape):
  x, w, g = _case(*shape)
  fn = lambda x: _value_and_gradients(x, w, g, *shape[-2:])

  @jax.jit
  def in_loop(x):
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(fn, x))
    body = lambda i, total: jax.tree.map(jnp.add, total, fn(x * (i + 1)))
    return lax.fori_loop(0, 1, body, zeros)

  _assert_close(in_loop(x), fn(x), 1e-6)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[3]])
def test_many_lanes_are_each_alone(shape, axes):
  x, w, g = _case(*shape)
  many = lambda y, axis: y if axis is None else np.stack([y, 2 * y, y + 1])
  xs, ws, gs = many(x, axes[0]), many(w, axes[1]), many(g, 0)
  fn = lambda *arrays: _value_and_gradients(*arrays, *shape[-2:])
  lanes = jax.jit(jax.vmap(fn, (*axes, 0)))(xs, ws, gs)
  pick = lambda y, axis, i: y if axis is None else y[i]
  for i in range(3):
    alone = fn(pick(xs, axes[0], i), pick(ws, axes[1], i), gs[i])
    _assert_close([y[i] for y in lanes], alone)
