"""The shape legend and the records that travel between rooms.

Letters, used in every shape comment: B batch, T frames of a stream, H height,
W width, C classes (background included), N instances. A class map is
`[H, W] uint8`: 0 is background, 1..C-1 the objects, 255 a pixel that is
ignored.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np

if TYPE_CHECKING:
  # A teacher's process reads this file and has no use for the rest of jax.
  import jax

BACKGROUND = 0
IGNORE = 255
MAX_CLASSES = 255  # a class map holds bytes, and 255 is taken by IGNORE

Array = Union["jax.Array", np.ndarray]
Frame = Array  # [H, W, 3] uint8, RGB


class Labels(NamedTuple):
  """What the student is trained on at a key frame."""

  classes: Array  # [H, W] uint8, a class map
  weights: Array  # [H, W] float32, loss weight of a pixel, 0 where ignored


class Task(NamedTuple):
  """What labels are to a student; pure functions of arrays.

  What a student is trained on at a key frame (`labels`) and what it answers
  (`answer`) are pytrees of the task's own; a student's `output` is what its
  network makes of a frame.
  """

  loss: Callable[[Any, Any], "jax.Array"]  # (output, labels) -> float32[]
  # (labels, answer) -> float32[] in [0, 1], the agreement of both
  accuracy: Callable[[Any, Any], "jax.Array"]
  decode: Callable[[Any], Any]  # output -> answer
  # (labels, labels) -> float32[] in [0, 1], where both have a weight
  similarity: Callable[[Any, Any], "jax.Array"]
  as_answer: Callable[[Any], Any]  # labels -> answer, for systems that copy
  # labels -> labels that every answer agrees with: there is nothing to learn
  without_weight: Callable[[Any], Any]
  blank: Callable[[Frame], Any]  # frame -> the answer before any is known


class Instances(NamedTuple):
  """A detector's answer for one frame, in the pixels of that frame."""

  boxes: np.ndarray  # [N, 4] float32: y0, x0, y1, x1
  scores: np.ndarray  # [N] float32 in [0, 1]
  class_ids: np.ndarray  # [N] int32, an index into the teacher's class names
  masks: np.ndarray  # [N, H, W] of the frame, or [N, M, M] of the box; 0..1


class StepInfo(NamedTuple):
  """What `System.learn` did on a key frame; scalars, 0 on other frames."""

  is_key: "jax.Array"  # bool
  stride: "jax.Array"  # int32, frames between teacher calls from here on
  num_updates: "jax.Array"  # int32, updates kept
  num_rolled_back: "jax.Array"  # int32, updates undone: the loss was not finite
  miou_before: "jax.Array"  # float32, agreement with the teacher at first
  miou_after: "jax.Array"  # float32, and after the last update
  loss: "jax.Array"  # float32, of the last finite forward pass
  grad_norm: "jax.Array"  # float32, of the last update kept, 0 without one


class Sample(NamedTuple):
  """One frame as a stream gives it to the host."""

  t: int  # index in the stream, from 0
  frame: np.ndarray | None  # [H, W, 3] uint8; None if it could not be read
  truth: np.ndarray | None  # [H, W] uint8, a class map; None without labels
  problem: str = ""  # why the frame is None
  seconds: float | None = None  # time stamp; None: t over the stream's rate


def check_frame(name: str, frame: Frame) -> None:
  """Raises unless `frame` is `[H, W, 3] uint8`."""
  if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
    raise ValueError(
      f"{name} must be [H, W, 3] uint8, not {frame.shape} {frame.dtype}"
    )


def check_class_map(name: str, classes: Array, frame: Frame) -> None:
  """Raises unless `classes` is `[H, W] uint8` of the size of `frame`."""
  if classes.shape != frame.shape[:2] or classes.dtype != np.uint8:
    raise ValueError(
      f"{name} must be {frame.shape[:2]} uint8, "
      f"not {classes.shape} {classes.dtype}"
    )


class Costs(NamedTuple):
  """Milliseconds; by default those of the paper's student.

  The paper's cost model of N frames, n key frames and u updates is

      teacher n + predict (N - n) + update u + training n
  """

  teacher: float = 300.0  # a call
  predict: float = 7.0  # a frame that is no key frame
  update: float = 30.0  # a gradient step
  training: float = 0.0  # a key frame, beside the teacher and the updates
