"""Raw values of pixels as networks that were trained on ImageNet want them."""

import jax
import jax.numpy as jnp
import numpy as np

from ojd.models import frame_norm

# Of a channel, 0 to 1.
_MEAN = np.array([0.485, 0.456, 0.406])
_DEVIATION = np.array([0.229, 0.224, 0.225])


def of_imagenet(frames: jax.Array) -> jax.Array:
  """[B, H, W, 3], 0..255, to about zero mean and unit variance.

  Frames in floating point keep their precision; the step itself is exact.
  """
  is_float = jnp.issubdtype(frames.dtype, jnp.floating)
  x = frame_norm.wide(frames)
  row = lambda values: jnp.asarray(255 * values, x.dtype).reshape(1, 1, 1, 3)
  x = (x - row(_MEAN)) / row(_DEVIATION)
  return x.astype(frames.dtype) if is_float else x
