"""Algorithm 1 of online distillation, and its two reductions.

`jit` asks the teacher by exponential back-off; `fixed` is `jit` with a constant
stride; `frozen` is `jit` whose teacher is never asked.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ojd import distill
from ojd import schedule as schedule_lib
from ojd.models.student import Params, Student
from ojd.types import StepInfo


class JitState(NamedTuple):
  """State of a student that learns on key frames."""

  params: Params
  opt_state: optax.OptState
  schedule: schedule_lib.BackoffState | tuple[()]
  t: jax.Array  # int32, the frame that comes next


def jit(
  student: Student,
  tx: optax.GradientTransformation,
  *,
  a_thresh: ArrayLike = 0.8,
  delta_min: int = 8,
  delta_max: int = 64,
  u_max: int = 8,
  u_min: int = 0,
) -> distill.System:
  """Just-in-time distillation (Algorithm 1), with the paper's constants.

  Args:
    student: init and apply of one frame.
    tx: the gradient step.
    a_thresh: mean IoU that ends the updates and, exceeded, doubles the stride.
    delta_min: least frames between teacher calls.
    delta_max: most frames between teacher calls.
    u_max: most updates on a key frame.
    u_min: least; 1 is how the authors' own experiments behave.
  """
  backoff = schedule_lib.exponential_backoff(delta_min, delta_max, a_thresh)
  return scheduled(
    student, tx, backoff, a_thresh=a_thresh, u_max=u_max, u_min=u_min
  )


def fixed(
  student: Student,
  tx: optax.GradientTransformation,
  *,
  stride: int = 8,
  a_thresh: ArrayLike = 0.8,
  u_max: int = 8,
  u_min: int = 0,
) -> distill.System:
  """`jit` that asks the teacher on every stride-th frame, however it went."""
  schedule = schedule_lib.fixed(stride)
  return scheduled(
    student, tx, schedule, a_thresh=a_thresh, u_max=u_max, u_min=u_min
  )


def frozen(student: Student) -> distill.System:
  """The student as it came: no teacher, no update."""
  tx, schedule = optax.identity(), schedule_lib.never()
  return scheduled(student, tx, schedule, a_thresh=1.0, u_max=0, u_min=0)


def scheduled(
  student: Student,
  tx: optax.GradientTransformation,
  schedule: schedule_lib.Schedule,
  *,
  a_thresh: ArrayLike,
  u_max: int,
  u_min: int,
) -> distill.System:
  """Adapts on the key frames of any schedule that follows the accuracy."""

  def init(rng_key, frame):
    """The key is consumed."""
    params = student.init(rng_key, frame)
    return JitState(
      params, tx.init(params), schedule.init(), jnp.zeros((), jnp.int32)
    )

  def next_key(state):
    return schedule.next_key(state.schedule, state.t)

  def learn(state, frame, labels):
    result = distill.adapt(
      student,
      tx,
      state.params,
      state.opt_state,
      frame,
      labels,
      a_thresh=a_thresh,
      u_max=u_max,
      u_min=u_min,
    )
    moved = schedule.advance(state.schedule, result.miou_after)
    info = StepInfo(
      is_key=jnp.ones((), bool),
      stride=schedule.stride(moved),
      num_updates=result.num_updates,
      num_rolled_back=result.num_rolled_back,
      miou_before=result.miou_before,
      miou_after=result.miou_after,
      loss=result.loss,
      grad_norm=result.grad_norm,
    )
    state = JitState(result.params, result.opt_state, moved, state.t + 1)
    return state, result.classes, info

  def predict(state, frame):
    logits = student.apply(state.params, frame)
    return state._replace(t=state.t + 1), distill.classify(logits)

  return distill.System(init, next_key, learn, predict)
