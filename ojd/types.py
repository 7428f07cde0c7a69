"""The shape legend and the records that travel between rooms.

Letters, used in every shape comment: B batch, T frames of a stream, H height, W width, C classes
(background included), N instances. A class map is `[H, W] uint8`: 0 is background, 1..C-1 the
objects, 255 a pixel that nobody is asked about.
"""

from typing import NamedTuple

import jax
import numpy as np

BACKGROUND = 0
IGNORE = 255
MAX_CLASSES = 255  # class maps are bytes, and 255 is taken by IGNORE

Frame = jax.Array | np.ndarray  # [H, W, 3] uint8, RGB


class Labels(NamedTuple):
  """What the student is trained on at a key frame."""

  classes: jax.Array | np.ndarray  # [H, W] uint8, a class map
  weights: jax.Array | np.ndarray  # [H, W] float32, loss weight of a pixel, 0 where ignored


class Instances(NamedTuple):
  """A detector's answer for one frame, in the pixels of that frame."""

  boxes: np.ndarray  # [N, 4] float32: y0, x0, y1, x1
  scores: np.ndarray  # [N] float32 in [0, 1]
  class_ids: np.ndarray  # [N] int32, an index into the teacher's class names
  masks: np.ndarray  # [N, H, W] bool or float, full size; or [N, M, M] float inside the box


class StepInfo(NamedTuple):
  """What `System.learn` did on a key frame; scalars. On other frames `num_updates` is 0."""

  is_key: jax.Array  # bool
  stride: jax.Array  # int32, frames between teacher calls after this frame
  num_updates: jax.Array  # int32
  num_rolled_back: jax.Array  # int32, updates undone because the loss after them was not finite
  miou_before: jax.Array  # float32, agreement with the teacher before the first update
  miou_after: jax.Array  # float32, the same after the last one
  loss: jax.Array  # float32, of the last finite forward pass
  grad_norm: jax.Array  # float32, of the last update


class Sample(NamedTuple):
  """One frame as a stream gives it to the host."""

  t: int  # index in the stream, from 0
  frame: np.ndarray | None  # [H, W, 3] uint8; None if it could not be read
  truth: np.ndarray | None  # [H, W] uint8, a class map; None if the stream has no labels
  problem: str = ""  # why the frame is None
