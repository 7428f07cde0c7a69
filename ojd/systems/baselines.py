"""Methods without a student: the teacher alone, and its latest answer kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ojd import distill, metrics, schedules
from ojd.types import BACKGROUND, IGNORE, Labels, StepInfo


class CopyState(NamedTuple):
  """State of `copy_last`."""

  schedule: schedules.BackoffState
  t: jax.Array  # int32, the frame that comes next
  classes: jax.Array  # [H, W] uint8, of the latest key frame


def teacher(num_classes: int) -> distill.System:
  """The teacher on every frame: `copy_last` with a stride of 1.

  A frame on which it fails gets the answer of the one before.
  """
  return copy_last(num_classes, stride=1)


def copy_last(num_classes: int, *, stride: int = 8) -> distill.System:
  """The teacher on every stride-th frame, and its answer until the next.

  Args:
    num_classes: C.
    stride: frames from one call of the teacher to the next.
  """
  schedule = schedules.fixed(stride)

  def init(rng_key, frame):
    del rng_key  # nothing is drawn
    blank = jnp.zeros(frame.shape[:2], jnp.uint8)
    return CopyState(schedule.init(), jnp.zeros((), jnp.int32), blank)

  def next_key(state):
    return schedule.next_key(state.schedule, state.t)

  def learn(state, frame, labels):
    del frame  # only its labels count
    classes = answer(labels)
    info = agreement(labels, state.classes, classes, num_classes)
    info = info._replace(stride=schedule.stride(state.schedule))
    return CopyState(state.schedule, state.t + 1, classes), classes, info

  def predict(state, frame):
    del frame  # taken to be like the last one
    return state._replace(t=state.t + 1), state.classes

  return distill.System(init, next_key, learn, predict)


def answer(labels: Labels) -> jax.Array:
  """Labels as a prediction, [H, W] uint8; what is ignored is background."""
  return jnp.where(labels.classes == IGNORE, BACKGROUND, labels.classes)


def agreement(
  labels: Labels, before: jax.Array, after: jax.Array, num_classes: int
) -> StepInfo:
  """The info of a key frame on which nothing is trained.

  Args:
    labels: of the teacher.
    before: [H, W] uint8, what would have been predicted without them.
    after: [H, W] uint8, the answer.
    num_classes: C.
  """
  counts = labels.weights > 0
  compare = lambda classes: metrics.frame_miou(
    labels.classes, classes, num_classes=num_classes, counts=counts
  )
  zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
  return StepInfo(
    is_key=jnp.ones((), bool),
    stride=none,
    num_updates=none,
    num_rolled_back=none,
    miou_before=compare(before),
    miou_after=compare(after),
    loss=zero,
    grad_norm=zero,
  )
