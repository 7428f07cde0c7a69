"""DDRNet: a branch at an eighth of the frame's size beside a deeper one.

Deep dual-resolution networks (Hong et al., 2021), for Cityscapes: after the
stem and two layers the branches separate, exchange features twice, and are
summed after a pyramid of pooled features (DAPPM). There is no auxiliary head.
Layers and parameters are the published ones, including biases in the stem; the
norms use the statistics of the frame, as in every student here, and a scale of
the pyramid that has a single pixel is not normed.

At 1024x2048 with 19 classes the convolutions take 143.06 GMAC, those of the
slim network 36.28. Tables of later papers say 143.7 and 36.6: they add an
operation for every bias, every value through a ReLU and every value into a
pooling, and two for every value through a norm.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ojd.models import layers, resize
from ojd.models import norm as norm_lib
from ojd.models.layers import BasicBlock, Bottleneck, ConvNorm

PYRAMID = 128
# Side and stride of the pyramid's pooling windows.
_WINDOWS = ((5, 2), (9, 4), (17, 8))


class Layer(nn.Module):
  """Two blocks; the second without the ReLU after its sum."""

  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = BasicBlock(self.features, self.stride, name="block1")(x)
    return BasicBlock(self.features, has_relu=False, name="block2")(x)


class Backbone(nn.Module):
  """Frames to features: `high` at an eighth, `low` at a 64th of the size.

  Attributes:
    planes: channels of the stem; the branches end in 4 and 16 times as many.
  """

  planes: int

  @nn.compact
  def __call__(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    planes, relu = self.planes, jax.nn.relu
    x = layers.imagenet_input(frames)
    for i in (1, 2):
      x = ConvNorm(planes, 3, 2, use_bias=True, name=f"stem{i}")(x)
    x = relu(Layer(planes, name="low1")(x))
    x = relu(Layer(2 * planes, 2, name="low2")(x))
    low = Layer(4 * planes, 2, name="low3")(x)
    high = Layer(2 * planes, name="high3")(x)
    low, high = self._exchange(low, high, 3)
    low = Layer(8 * planes, 2, name="low4")(relu(low))
    high = Layer(2 * planes, name="high4")(relu(high))
    low, high = self._exchange(low, high, 4)
    low = Bottleneck(8 * planes, 2, 2, has_relu=False, name="low5")(relu(low))
    high = Bottleneck(2 * planes, 2, has_relu=False, name="high5")(relu(high))
    return high, low

  def _exchange(self, low, high, level):
    """Adds to each branch the other's features, resized."""
    up = ConvNorm(2 * self.planes, has_relu=False, name=f"up{level}")
    up = resize.resize(up(jax.nn.relu(low)), high.shape[1:3], by_edges=True)
    down, num_steps = jax.nn.relu(high), level - 2
    for i in range(num_steps):
      features, is_last = 4 * self.planes << i, i == num_steps - 1
      step = ConvNorm(
        *(features, 3, 2), has_relu=not is_last, name=f"down{level}_{i + 1}"
      )
      down = step(down)
    return low + down, high + up


class _NormReluConv(nn.Module):
  """Norm, ReLU and convolution, in this order."""

  features: int
  size: int = 1

  @nn.compact
  def __call__(self, x):
    is_pixel = x.shape[1:3] == (1, 1)
    norm = layers.ScaleRelu if is_pixel else layers.NormRelu
    x = norm(name="norm")(x)
    return layers.Conv(self.features, (self.size,) * 2, name="conv")(x)


class Pyramid(nn.Module):
  """Features pooled over ever larger windows, each added to the one before.

  Attributes:
    width: channels of a scale.
    features: output channels, at the size of the input.
  """

  width: int
  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    pooled = [_windowed(x, *window) for window in _WINDOWS]
    pooled.append(jnp.mean(x, axis=(1, 2), keepdims=True))
    scales = [_NormReluConv(self.width, name="scale0")(x)]
    for i, y in enumerate(pooled, 1):
      y = _NormReluConv(self.width, name=f"scale{i}")(y)
      y = resize.resize(y, x.shape[1:3], by_edges=True)
      scales.append(
        _NormReluConv(self.width, 3, name=f"process{i}")(y + scales[-1])
      )
    scales = jnp.concatenate(scales, axis=-1)
    past = _NormReluConv(self.features, name="shortcut")(x)
    return _NormReluConv(self.features, name="compression")(scales) + past


def _windowed(x, side, stride):
  """Means over square windows; pixels beyond the frame count as zeros.

  A matrix product an axis: its gradients are matrix products as well.
  """
  rows, columns = (
    jnp.asarray(_window_means(size, side, stride), x.dtype)
    for size in x.shape[1:3]
  )
  x = jnp.einsum("ph,bhwc->bpwc", rows, x)
  return jnp.einsum("qw,bpwc->bpqc", columns, x)


def _window_means(size, side, stride):
  """[outputs, inputs] of one axis."""
  centres = np.arange(0, size, stride)[:, None]
  return (abs(np.arange(size) - centres) <= side // 2) / side


class _DDRNet(nn.Module):
  """Frames in, logits out.

  Attributes:
    num_classes: C, background included.
    width: multiplies all widths.
  """

  num_classes: int
  width: float = 1.0

  # Not fields: the variants differ in them.
  PLANES, HEAD = 64, 128

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """Maps [B, H, W, 3], raw values 0..255, to logits [B, H, W, C] float32."""
    scaled = lambda features: max(1, round(self.width * features))
    planes = scaled(self.PLANES)
    high, low = Backbone(planes, name="backbone")(frames)
    low = Pyramid(scaled(PYRAMID), 4 * planes, name="pyramid")(low)
    x = high + resize.resize(low, high.shape[1:3], by_edges=True)
    x = _NormReluConv(scaled(self.HEAD), 3, name="head")(x)
    x = layers.NormRelu(name="head_norm")(x)
    logits = layers.Conv(self.num_classes, (1, 1), use_bias=True, name="logits")
    return resize.resize_few(
      norm_lib.wide(logits(x)), frames.shape[1:3], by_edges=True
    )


class DDRNet23(_DDRNet):
  """DDRNet-23: 20,148,947 parameters with 19 classes."""


class DDRNet23Slim(_DDRNet):
  """DDRNet-23-slim: half as wide but for its pyramid, 5,695,987."""

  PLANES, HEAD = 32, 64


def ddrnet23(
  num_classes: int, *, width: layers.Width = DDRNet23.width
) -> DDRNet23:
  """DDRNet-23: a branch of high resolution beside a deep one.

  Args:
    width: multiplies all widths.
  """
  return DDRNet23(num_classes, width)


def ddrnet23_slim(
  num_classes: int, *, width: layers.Width = DDRNet23Slim.width
) -> DDRNet23Slim:
  """DDRNet-23-slim: half as wide as `ddrnet23` but for its pyramid.

  Args:
    width: multiplies all widths.
  """
  return DDRNet23Slim(num_classes, width)
