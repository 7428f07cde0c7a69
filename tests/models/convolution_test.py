"""Convolutions, depthwise too, against torch; gradients in lanes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ojd.models import convolution
from tests.reference.torch_layers import nchw, nhwc


class Case(NamedTuple):
  """A convolution of a batch of two."""

  size: tuple[int, int]
  kernel: tuple[int, int, int, int]  # HWIO
  stride: int | tuple[int, int] = 1
  rate: int = 1
  conv_fn: Callable = lambda x, w, stride, rate: convolution.conv2d(
    x, w, stride
  )

  def arrays(self):
    """Input, kernel, and a gradient of the output."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape, np.float32)
    kernel, out = self.kernel, -(-np.array(self.size) // self.stride)
    x = draw(2, *self.size, kernel[3] if self.is_depthwise else kernel[2])
    return x, draw(*kernel), draw(2, *out, kernel[3])

  @property
  def is_depthwise(self):
    return self.conv_fn is convolution.depthwise_conv2d

  def run(self, x, w, g):
    """Output, input gradient and kernel gradient."""
    conv = lambda x, w: self.conv_fn(x, w, self.stride, self.rate)
    y, backward = jax.vjp(conv, x, w)
    return (y, *backward(g))

  def by_torch(self, x, w, g):
    tx, tw = nchw(x), torch.tensor(w.transpose(3, 2, 0, 1), requires_grad=True)
    y = F.conv2d(
      *(tx, tw, None, self.stride),
      padding=tuple(k // 2 * self.rate for k in self.kernel[:2]),
      dilation=self.rate,
      groups=x.shape[-1] if self.is_depthwise else 1,
    )
    y.backward(nchw(g))
    return nhwc(y), nhwc(tx.grad), tw.grad.numpy().transpose(2, 3, 1, 0)


def _dilated(size, kernel, rate):
  conv = lambda x, w, stride, rate: convolution.dilated_conv2d(x, w, rate)
  return Case(size, kernel, 1, rate, conv)


def _depthwise(size, kernel, channels, stride=1, rate=1):
  kernel = (*kernel, 1, channels)
  return Case(size, kernel, stride, rate, convolution.depthwise_conv2d)


PLAIN = [
  Case((9, 12), (3, 3, 3, 5)),
  Case((12, 9), (3, 3, 3, 5), 2),
  Case((7, 7), (3, 3, 4, 2), 2),
  Case((8, 6), (1, 1, 4, 3)),
  Case((9, 6), (1, 1, 4, 3), 2),
  Case((9, 12), (3, 1, 3, 5), (2, 1)),
  Case((9, 7), (1, 3, 3, 5), (1, 2)),
]
# Rates at which some taps, or all but the middle one, read no pixel.
DILATED = [
  _dilated((9, 7), (*kernel, 4, 3), rate)
  for kernel in ((3, 3), (1, 5))
  for rate in (1, 2, 6, 9)
]
DEPTHWISE = [
  _depthwise((9, 12), (3, 3), 5),
  _depthwise((12, 9), (3, 3), 5, 2),
  _depthwise((7, 7), (3, 3), 4, 2),
  _depthwise((9, 8), (3, 3), 3, rate=2),
  _depthwise((4, 3), (3, 3), 3, rate=6),
  _depthwise((8, 6), (1, 5), 3),
]


def _assert_close(ours, theirs, tolerance=1e-5):
  for a, b in zip(ours, theirs, strict=True):
    scale = max(np.abs(b).max(), 1e-3)
    np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("case", [*PLAIN, *DILATED, *DEPTHWISE])
def test_value_and_gradients_equal_torch(case, jit):
  arrays = case.arrays()
  ours = (jax.jit(case.run) if jit else case.run)(*arrays)
  _assert_close(ours, case.by_torch(*arrays))


@pytest.mark.parametrize("band_bytes", [1, 700, 1400, 1 << 20])
@pytest.mark.parametrize("case", [Case((12, 9), (3, 3, 3, 5)), *DEPTHWISE])
def test_gradients_by_bands_equal_torch(monkeypatch, case, band_bytes):
  """A row each, some that divide the height or do not, more than there are."""
  monkeypatch.setattr(convolution, "_MAX_BYTES_UNBANDED", 0)
  for name in ("_BAND_BYTES", "_DEPTHWISE_BAND_BYTES"):
    monkeypatch.setattr(convolution, name, band_bytes)
  arrays = case.arrays()
  run = jax.jit(lambda *arrays: case.run(*arrays))  # by these bytes, not others
  _assert_close(run(*arrays), case.by_torch(*arrays))


@pytest.mark.parametrize("case", DEPTHWISE)
def test_what_accelerators_run_is_the_same(case):
  x, w, _ = case.arrays()
  args = x, w, case.stride, case.rate
  _assert_close([convolution.grouped(*args)], [convolution.by_taps(*args)])


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("case", [*PLAIN, DEPTHWISE[1], DEPTHWISE[3]])
def test_many_lanes_are_each_alone(case, axes):
  """Values and gradients; a kernel for every lane, or one for all."""
  axes = (*axes, 0)
  arrays = [
    y if axis is None else np.stack([y, 2 * y, y + 1])
    for y, axis in zip(case.arrays(), axes, strict=True)
  ]
  lanes = jax.jit(jax.vmap(case.run, axes))(*arrays)
  for i in range(3):
    pick = lambda y, axis, i=i: y if axis is None else y[i]
    alone = case.run(*map(pick, arrays, axes))
    _assert_close([y[i] for y in lanes], alone)
