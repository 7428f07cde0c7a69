"""Residual blocks of ResNet and its kin, normed by each frame's statistics.

The ReLU comes after the sum. Where a network looks at the sum before, a block
leaves it out.
"""

import flax.linen as nn
import jax

from ojd.models import layers


class ConvNorm(nn.Module):
  """Convolution, norm and, unless told otherwise, ReLU."""

  features: int
  size: int = 1
  stride: int = 1
  use_bias: bool = False
  is_cut: bool = True  # at zero

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = layers.Conv(
      *(self.features, (self.size,) * 2, self.stride, self.use_bias),
      name="conv",
    )(x)
    norm = layers.NormRelu if self.is_cut else layers.Norm
    return norm(name="norm")(x)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and what goes past them."""

  features: int
  stride: int = 1
  is_cut: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = ConvNorm(self.features, 3, self.stride, name="conv1")(x)
    y = ConvNorm(self.features, 3, is_cut=False, name="conv2")(y)
    y = y + _past(x, self.features, self.stride)
    return jax.nn.relu(y) if self.is_cut else y


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1, the last `expansion` times as wide as the others."""

  features: int
  expansion: int
  stride: int = 1
  is_cut: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    wide = self.expansion * self.features
    y = ConvNorm(self.features, name="conv1")(x)
    y = ConvNorm(self.features, 3, self.stride, name="conv2")(y)
    y = ConvNorm(wide, is_cut=False, name="conv3")(y)
    y = y + _past(x, wide, self.stride)
    return jax.nn.relu(y) if self.is_cut else y


def _past(x, features, stride):
  """The input itself, or normed through 1x1 where the shape is another."""
  if stride == 1 and x.shape[-1] == features:
    return x
  return ConvNorm(features, 1, stride, is_cut=False, name="shortcut")(x)
