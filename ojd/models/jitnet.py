"""JITNet, the student of online distillation: a small residual U-Net.

Three strided encoder blocks, three decoder blocks with skips from the first two
encoder blocks, a head at half the frame's size (Mullapudi et al., 2019). Every
block is pre-activated and every norm uses the statistics of the frame. At width
0.5, one unit and 23 classes it has 752,383 parameters and takes 15.157 GFLOP at
720x1280, the network of the paper's Table 1.
"""

import functools
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd import specs
from ojd.models import layers, norm, resize

STEM = (16, 64)
ENCODER = (128, 128, 256)
DECODER = (256, 128, 64)
HEAD = (64, 16)

_ENCODER_FLOOR = 8


def decoder_floor(num_classes: int) -> int:
  """The least width of decoder and head, by the number of classes."""
  if num_classes <= 8:
    return 8
  return 16 if num_classes <= 16 else 32


class _ConvNormRelu(nn.Module):
  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x):
    x = layers.Conv(self.features, (3, 3), self.stride, name="conv")(x)
    return layers.NormRelu(name="norm")(x)


class Unit(nn.Module):
  """Pre-activated residual unit: 3x3, then 1x3 and 3x1 with nothing between.

  The shortcut is the raw input, sub-sampled, where the width stays, and a 1x1
  convolution of the activated input where it changes.
  """

  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = functools.partial(layers.Conv, self.features)
    active = layers.NormRelu(name="preact")(x)
    if x.shape[-1] == self.features:
      shortcut = x[..., :: self.stride, :: self.stride, :]
    else:
      shortcut = conv((1, 1), self.stride, use_bias=True, name="shortcut")(
        active
      )
    y = _ConvNormRelu(self.features, self.stride, name="conv1")(active)
    y = conv((1, 3), use_bias=True, name="conv2_1x3")(y)
    y = conv((3, 1), use_bias=True, name="conv2_3x1")(y)
    return shortcut + y


class JITNet(nn.Module):
  """Frames in, logits out.

  Attributes:
    num_classes: C, background included.
    width: multiplies every width above, down to a floor.
    num_units: units a block; all but the last of a block have stride 1.
    resize_logits: whether the logits are made at half size and then resized,
      a quarter of the work of the published order for the same numbers (both
      steps are linear and a resize keeps constants).
  """

  num_classes: int
  width: float = 0.5
  num_units: int = 1
  resize_logits: bool = True

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """Maps [B, H, W, 3], raw values 0..255, to logits [B, H, W, C].

    Frames in floating point set the precision of all but the statistics; the
    logits are float32 or better.
    """
    floor = decoder_floor(self.num_classes)
    encoder_width = lambda w: max(int(self.width * w), _ENCODER_FLOOR)
    decoder_width = lambda w: max(int(self.width * w), floor)

    is_float = jnp.issubdtype(frames.dtype, jnp.floating)
    x = frames if is_float else frames.astype(jnp.float32)
    x = _ConvNormRelu(encoder_width(STEM[0]), 2, name="conv1")(x)
    stem_size = x.shape[-3:-1]
    x = _ConvNormRelu(encoder_width(STEM[1]), 2, name="conv2")(x)
    quarter_size = x.shape[-3:-1]

    skips = []
    for i, w in enumerate(ENCODER, 1):
      x = self._block(x, f"enc{i}", encoder_width(w), stride=2)
      skips.append(x)
    skips.pop()  # the deepest goes straight into the decoder
    x = self._block(x, "dec1", decoder_width(DECODER[0]))
    for i, w in enumerate(DECODER[1:], 2):
      skip = skips.pop()
      x = resize.resize(x, skip.shape[-3:-1])
      x = jnp.concatenate([skip, x], axis=-1)
      x = self._block(x, f"dec{i}", decoder_width(w))

    # Two steps, as published: they differ from one resize to the half size.
    x = resize.resize(resize.resize(x, quarter_size), stem_size)
    x = _ConvNormRelu(decoder_width(HEAD[0]), name="decoder_conv2")(x)
    x = _ConvNormRelu(decoder_width(HEAD[1]), name="decoder_conv1")(x)
    logits = layers.Conv(self.num_classes, (1, 1), use_bias=True, name="logits")
    full_size = frames.shape[-3:-1]
    if self.resize_logits:
      return resize.resize_few(norm.wide(logits(x)), full_size)
    return norm.wide(logits(resize.resize(x, full_size)))

  def _block(self, x, name, features, stride=1):
    """`num_units` units; only the last strides."""
    for i in range(1, self.num_units):
      x = Unit(features, name=f"{name}_unit{i}")(x)
    return Unit(features, stride, name=name)(x)


def jitnet(
  num_classes: int,
  *,
  width: layers.Width = JITNet.width,
  num_units: Annotated[int, specs.Range(1, 16)] = JITNet.num_units,
) -> JITNet:
  """JITNet, the student of the paper: a small residual U-Net.

  Args:
    width: multiplies all widths, down to a floor.
    num_units: residual units a block.
  """
  return JITNet(num_classes, width, num_units)
