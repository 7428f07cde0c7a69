"""MobileNetV2 (Sandler et al., 2018) with the head of DeepLabV3.

The backbone has the parameters of torchvision's `mobilenet_v2().features`,
under other names, and the head those of torchvision's `DeepLabHead`. As in
every student here, norms use the statistics of the frame, so that image pooling
is not normed, and there is no dropout. The last strided stage is dilated
instead, so that the features have a sixteenth of the frame's size.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd.models import layers, resize
from ojd.models import norm as norm_lib

STEM, LAST = 32, 1280
# Expansion, channels, blocks, stride of the first; as published.
STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)
OUTPUT_STRIDE = 16  # strides beyond it become dilations
HEAD = 256
RATES = (6, 12, 18)  # of the head's dilated convolutions


def scaled(channels: int, width: float) -> int:
  """A multiple of eight near the product, at most a tenth below it."""
  wanted = channels * width
  near = max(8, int(wanted + 4) // 8 * 8)
  return near + 8 if near < 0.9 * wanted else near


class _Conv(nn.Module):
  """Convolution, norm and, with `has_relu`, ReLU6; depthwise if None."""

  features: int | None
  size: int = 1
  stride: int = 1
  dilation: int = 1
  has_relu: bool = True

  @nn.compact
  def __call__(self, x):
    size, steps = (self.size,) * 2, dict(stride=self.stride, name="conv")
    steps["dilation"] = self.dilation
    if self.features is None:
      x = layers.Depthwise(size, **steps)(x)
    else:
      x = layers.Conv(self.features, size, **steps)(x)
    norm = layers.NormRelu6 if self.has_relu else layers.Norm
    return norm(name="norm")(x)


class InvertedResidual(nn.Module):
  """1x1 to a wider layer, 3x3 depthwise, and 1x1 back, without a ReLU.

  The input is added where the published stride is 1 and the width stays.
  """

  features: int
  expansion: int
  stride: int = 1
  dilation: int = 1
  has_stride: bool = False  # as published

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = x
    if self.expansion > 1:
      y = _Conv(self.expansion * x.shape[-1], name="expand")(y)
    y = _Conv(None, 3, self.stride, self.dilation, name="depthwise")(y)
    y = _Conv(self.features, has_relu=False, name="project")(y)
    is_like = x.shape[-1] == self.features and not self.has_stride
    return x + y if is_like else y


class Backbone(nn.Module):
  """[B, H, W, 3], values 0..255, to features [B, H / 16, W / 16, 1280]."""

  width: float = 1.0

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    x = layers.imagenet_input(frames)
    x = _Conv(scaled(STEM, self.width), 3, 2, name="stem")(x)
    number, scale, dilation = 1, 2, 1
    for expansion, channels, num_blocks, published in STAGES:
      features = scaled(channels, self.width)
      stride = published if scale * published <= OUTPUT_STRIDE else 1
      for i in range(num_blocks):
        x = InvertedResidual(
          features,
          expansion,
          1 if i else stride,
          dilation,
          has_stride=not i and published > 1,
          name=f"block{number}",
        )(x)
        number += 1
        if not i:
          # The first of a stage has the dilation of the stage before.
          dilation *= published // stride
      scale *= stride
    return _Conv(scaled(LAST, max(self.width, 1.0)), name="last")(x)


class _ConvNormRelu(nn.Module):
  size: int = 1
  dilation: int = 1

  @nn.compact
  def __call__(self, x):
    conv = functools.partial(layers.Conv, HEAD, (self.size,) * 2)
    x = conv(dilation=self.dilation, name="conv")(x)
    return layers.NormRelu(name="norm")(x)


class _Pooling(nn.Module):
  """The mean of the image, at each of its pixels."""

  @nn.compact
  def __call__(self, x):
    y = jnp.mean(x, axis=(1, 2), keepdims=True)
    y = layers.Conv(HEAD, (1, 1), name="conv")(y)
    y = layers.ScaleRelu(name="norm")(y)
    return jnp.broadcast_to(y, (*x.shape[:3], HEAD))


class Pyramid(nn.Module):
  """Atrous spatial pyramid pooling: dilations of several rates, and a mean."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scales = [_ConvNormRelu(name="point")(x)]
    for rate in RATES:
      scales.append(_ConvNormRelu(3, rate, name=f"rate{rate}")(x))
    scales.append(_Pooling(name="pooling")(x))
    return _ConvNormRelu(name="project")(jnp.concatenate(scales, axis=-1))


class MobileNetSeg(nn.Module):
  """Frames in, logits out.

  Attributes:
    num_classes: C, background included.
    width: multiplies the backbone's widths, to multiples of eight.
  """

  num_classes: int
  width: float = 1.0

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """Maps [B, H, W, 3], raw values 0..255, to logits [B, H, W, C] float32."""
    x = Backbone(self.width, name="backbone")(frames)
    x = Pyramid(name="pyramid")(x)
    x = _ConvNormRelu(3, name="head")(x)
    logits = layers.Conv(self.num_classes, (1, 1), use_bias=True, name="logits")
    return resize.resize_few(norm_lib.wide(logits(x)), frames.shape[-3:-1])


def mobilenet_v2(
  num_classes: int, *, width: layers.Width = MobileNetSeg.width
) -> MobileNetSeg:
  """MobileNetV2 with the head of DeepLabV3.

  Args:
    width: multiplies the backbone's widths, to multiples of eight.
  """
  return MobileNetSeg(num_classes, width)
