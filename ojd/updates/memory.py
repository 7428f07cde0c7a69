"""A ring of past key frames and their labels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ojd.types import Frame, Labels

BYTES = 6  # a pixel


class Memory(NamedTuple):
  """The last N key frames."""

  frames: jax.Array  # [N, H, W, 3] uint8
  classes: jax.Array  # [N, H, W] uint8
  weights: jax.Array  # [N, H, W] float16, which holds 0, 1 and 5 exactly


def blank(capacity: int, frame: Frame) -> Memory:
  """A ring of so many frames of that size, none of them there yet."""
  size = (capacity, *frame.shape[:2])
  return Memory(
    jnp.zeros((*size, 3), jnp.uint8),
    jnp.zeros(size, jnp.uint8),
    jnp.zeros(size, jnp.float16),
  )


def put(
  memory: Memory,
  frame: Frame,
  labels: Labels,
  index: ArrayLike,
  is_kept: ArrayLike = True,
) -> Memory:
  """The memory with the frame at an index, if it is to be kept."""

  def replace(ring, x):
    x = jnp.asarray(x).astype(ring.dtype)
    return ring.at[index].set(jnp.where(is_kept, x, ring[index]))

  return jax.tree.map(replace, memory, Memory(frame, *labels))


def get(memory: Memory, index: ArrayLike) -> tuple[jax.Array, Labels]:
  """The frame at an index, and its labels."""
  frame, classes, weights = jax.tree.map(lambda x: x[index], memory)
  return frame, Labels(classes, weights.astype(jnp.float32))
