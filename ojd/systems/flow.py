"""Labels of a few frames, carried to the others by optical flow."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ojd import distill, schedules
from ojd.models import optical_flow
from ojd.systems import baselines


class FlowState(NamedTuple):
  """State of `flow`."""

  schedule: schedules.BackoffState
  t: jax.Array  # int32, the frame that comes next
  frame: jax.Array  # [H, W, 3] uint8, the one before
  classes: jax.Array  # [H, W] uint8, its answer


def flow(
  num_classes: int,
  *,
  stride: int = 8,
  flow_fn: optical_flow.HostFlow | None = None,
) -> distill.System:
  """The teacher on every stride-th frame; other answers follow the flow.

  The answer of the frame before is moved, rounded to whole pixels, so errors
  add up until the next key frame. `copy_last` is this without any motion.

  Args:
    num_classes: C.
    stride: frames from one call of the teacher to the next.
    flow_fn: of `optical_flow`; None for its default.
  """
  schedule = schedules.fixed(stride)

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
    classes = baselines.answer(labels)
    # One flow more than the method needs: it tells how far the labels drift.
    moved = move(state, frame)
    info = baselines.agreement(labels, moved, classes, num_classes)
    info = info._replace(stride=schedule.stride(state.schedule))
    return after(state, frame, classes), classes, info

  def predict(state, frame):
    classes = move(state, frame)
    return after(state, frame, classes), classes

  return distill.System(init, next_key, learn, predict)
