"""Methods without a student: the teacher alone, and its latest answer.

The answer is kept as it is, or carried along by optical flow.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ojd import distill, schedules
from ojd.models import optical_flow
from ojd.models.student import Student
from ojd.specs import Count
from ojd.tasks import segmentation
from ojd.types import StepInfo, Task
from ojd.updates.step import Tx


class CopyState(NamedTuple):
  """State of `copy_last`."""

  schedule: schedules.BackoffState
  t: jax.Array  # int32, the frame that comes next
  answer: Any  # of the latest key frame


def teacher(
  student: Student, tx: Tx | None = None, *, task: Task | None = None
) -> distill.System:
  """The teacher on every frame: `copy_last` with a stride of 1.

  If it fails on a frame, the last answer stays.

  Args:
    student: gives the number of classes; it never answers.
    tx: not used.
    task: what labels are; None: segmentation over the student's classes.
  """
  return copy_last(student, tx, task=task, stride=1)


def copy_last(
  student: Student,
  tx: Tx | None = None,
  *,
  task: Task | None = None,
  stride: Count = 8,
) -> distill.System:
  """The teacher on every stride-th frame, and its answer until the next.

  Args:
    student: gives the number of classes; it never answers.
    tx: not used.
    task: what labels are; None: segmentation over the student's classes.
    stride: frames from one teacher call to the next.
  """
  del tx
  task = task or segmentation(student.num_classes)
  schedule = schedules.fixed(stride)

  def init(rng_key, frame):
    del rng_key  # nothing is drawn
    blank = task.blank(frame)
    return CopyState(schedule.init(), jnp.zeros((), jnp.int32), blank)

  def next_key(state):
    return schedule.next_key(state.schedule, state.t)

  def learn(state, frame, labels):
    del frame  # only its labels count
    answer = task.as_answer(labels)
    info = agreement(task, labels, state.answer, answer)
    info = info._replace(stride=schedule.stride(state.schedule))
    return CopyState(state.schedule, state.t + 1, answer), answer, info

  def predict(state, frame):
    del frame  # taken to be like the last one
    return state._replace(t=state.t + 1), state.answer

  return distill.System(init, next_key, learn, predict)


def agreement(task: Task, labels: Any, before: Any, after: Any) -> StepInfo:
  """The info of a key frame on which nothing is trained.

  Args:
    task: what labels are.
    labels: of the teacher.
    before: the answer without the labels.
    after: the answer.
  """
  zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
  return StepInfo(
    is_key=jnp.ones((), bool),
    stride=none,
    num_updates=none,
    num_rolled_back=none,
    miou_before=task.accuracy(labels, before),
    miou_after=task.accuracy(labels, after),
    loss=zero,
    grad_norm=zero,
  )


class FlowState(NamedTuple):
  """State of `flow`."""

  schedule: schedules.BackoffState
  t: jax.Array  # int32, the frame that comes next
  frame: jax.Array  # [H, W, 3] uint8, the one before
  classes: jax.Array  # [H, W] uint8, its answer


def flow(
  student: Student,
  tx: Tx | None = None,
  *,
  stride: Count = 8,
  flow: str | optical_flow.HostFlow = optical_flow.DEFAULT,
) -> distill.System:
  """The teacher on every stride-th frame, its answer carried by optical flow.

  The last answer moves by whole pixels, so errors add up until the next key
  frame. `copy_last` is this without any motion.

  Args:
    student: gives the number of classes; it never answers.
    tx: not used.
    stride: frames from one teacher call to the next.
    flow: dis:ultrafast, dis:fast, dis:medium or raft:FILE.
  """
  del tx
  task = segmentation(student.num_classes)
  schedule, flow_fn = schedules.fixed(stride), optical_flow.as_flow(flow)

  def init(rng_key, frame):
    del rng_key  # nothing is drawn
    return FlowState(
      schedule.init(),
      jnp.zeros((), jnp.int32),
      jnp.zeros(frame.shape, jnp.uint8),
      jnp.zeros(frame.shape[:2], jnp.uint8),
    )

  def next_key(state):
    return schedule.next_key(state.schedule, state.t)

  def move(state, frame):
    motion = optical_flow.dense_flow(frame, state.frame, flow_fn)
    return optical_flow.warp(state.classes, motion)

  def after(state, frame, classes):
    return FlowState(state.schedule, state.t + 1, jnp.asarray(frame), classes)

  def learn(state, frame, labels):
    classes = task.as_answer(labels)
    # One flow more than the method needs: it measures how far the labels drift.
    moved = move(state, frame)
    info = agreement(task, labels, moved, classes)
    info = info._replace(stride=schedule.stride(state.schedule))
    return after(state, frame, classes), classes, info

  def predict(state, frame):
    classes = move(state, frame)
    return after(state, frame, classes), classes

  return distill.System(init, next_key, learn, predict)
