"""Labels of a few frames, carried to the others by optical flow."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ojd import distill, schedules
from ojd.models import optical_flow
from ojd.models.student import Student
from ojd.specs import Count
from ojd.systems.baselines import agreement
from ojd.tasks import segmentation
from ojd.updates.step import Tx


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

  The answer of the frame before is moved, rounded to whole pixels, so errors
  add up until the next key frame. `copy_last` is this without any motion.

  Args:
    student: its classes count, and it is never asked.
    tx: no step is ever made.
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
