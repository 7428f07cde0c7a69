"""ShadowTutor's student: JITNet's shape with half the work and fewer norms.

Blocks are normed once, at their input, by the statistics of the frame; every
convolution has a bias, and the head has neither norm nor ReLU (Chung et al.,
2020). With nine classes it has 483,873 parameters, of which 103,465 are behind
the first decoder block: partial distillation trains and sends those.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ojd.models import layers, norm, resize

STEM = 8
ENCODER = (64, 64, 128)
DECODER = (64, 32, 32)
# Of red, green and blue; the published weights expect no scaling.
_MEAN = np.array([123.675, 116.28, 103.53])


class Block(nn.Module):
  """Norm and ReLU, then 3x3, 1x3 and 3x1, and a shortcut.

  The shortcut is a 1x1 convolution of the activated input, or with `is_plain`
  the raw input, sub-sampled.
  """

  features: int
  stride: int = 1
  is_plain: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = functools.partial(layers.Conv, self.features, use_bias=True)
    active = layers.NormRelu(name="preact")(x)
    if self.is_plain:
      shortcut = x[..., :: self.stride, :: self.stride, :]
    else:
      shortcut = conv((1, 1), self.stride, name="shortcut")(active)
    y = jax.nn.relu(conv((3, 3), self.stride, name="conv1")(active))
    y = conv((1, 3), name="conv2_1x3")(y)
    y = conv((3, 1), name="conv2_3x1")(y)
    return shortcut + y


class ShadowStudent(nn.Module):
  """Frames in, logits out.

  Attributes:
    num_classes: C, background included.
    width: multiplies every width above.
    resize_logits: whether the logits are made at half size and then resized,
      a quarter of the work of the published order for the same numbers.
  """

  num_classes: int
  width: float = 1.0
  resize_logits: bool = True

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """Maps [B, H, W, 3], raw values 0..255, to logits [B, H, W, C] float32."""
    scaled = lambda features: max(1, round(self.width * features))
    conv = functools.partial(layers.Conv, use_bias=True)
    fit = lambda x, to: resize.resize(x, to.shape[-3:-1], by_edges=True)

    is_float = jnp.issubdtype(frames.dtype, jnp.floating)
    x = norm.wide(frames)
    x = x - jnp.asarray(_MEAN, x.dtype).reshape(1, 1, 1, 3)
    x = x.astype(frames.dtype) if is_float else x
    stem = conv(scaled(STEM), (3, 3), 2, name="conv1")(x)
    x = conv(scaled(STEM), (3, 3), 2, name="conv2")(stem)
    first = Block(scaled(ENCODER[0]), 2, name="enc1")(x)
    second = Block(scaled(ENCODER[1]), 2, is_plain=True, name="enc2")(first)
    x = Block(scaled(ENCODER[2]), 2, name="enc3")(second)
    x = Block(scaled(DECODER[0]), name="dec1")(x)
    for i, skip in enumerate((second, first), 1):
      x = jnp.concatenate([fit(x, skip), skip], axis=-1)
      x = Block(scaled(DECODER[i]), name=f"dec{i + 1}")(x)
    x = fit(x, stem)
    for i in (1, 2):
      x = conv(scaled(DECODER[2]), (3, 3), name=f"decoder_conv{i}")(x)
    logits = conv(self.num_classes, (1, 1), name="logits")
    size = frames.shape[-3:-1]
    if self.resize_logits:
      wide = norm.wide(logits(x))
      return resize.resize_few(wide, size, by_edges=True)
    x = resize.resize(x, size, by_edges=True)
    return norm.wide(logits(x))


def shadow(
  num_classes: int, *, width: layers.Width = ShadowStudent.width
) -> ShadowStudent:
  """ShadowTutor's student, of about JITNet's shape and half its work.

  Args:
    width: multiplies all widths.
  """
  return ShadowStudent(num_classes, width)
