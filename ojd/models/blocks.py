"""Residual blocks of ResNets, normed by the statistics of each frame.

The ReLU comes after the sum, and can be left out with `has_relu=False`.
"""

import flax.linen as nn
import jax

from ojd.models import layers


class ConvNorm(nn.Module):
  """Convolution, norm and, with `has_relu`, ReLU."""

  features: int
  size: int = 1
  stride: int = 1
  use_bias: bool = False
  has_relu: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = layers.Conv(
      *(self.features, (self.size,) * 2, self.stride, self.use_bias),
      name="conv",
    )(x)
    norm = layers.NormRelu if self.has_relu else layers.Norm
    return norm(name="norm")(x)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut (He et al., 2016)."""

  features: int
  stride: int = 1
  has_relu: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = ConvNorm(self.features, 3, self.stride, name="conv1")(x)
    y = ConvNorm(self.features, 3, has_relu=False, name="conv2")(y)
    y = y + _shortcut(x, self.features, self.stride)
    return jax.nn.relu(y) if self.has_relu else y


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1, the last `expansion` times as wide, and a shortcut."""

  features: int
  expansion: int
  stride: int = 1
  has_relu: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    wide = self.expansion * self.features
    y = ConvNorm(self.features, name="conv1")(x)
    y = ConvNorm(self.features, 3, self.stride, name="conv2")(y)
    y = ConvNorm(wide, has_relu=False, name="conv3")(y)
    y = y + _shortcut(x, wide, self.stride)
    return jax.nn.relu(y) if self.has_relu else y


def _shortcut(x, features, stride):
  """The input, through a normed 1x1 where the output has another shape."""
  if stride == 1 and x.shape[-1] == features:
    return x
  return ConvNorm(features, 1, stride, has_relu=False, name="shortcut")(x)
