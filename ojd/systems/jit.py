"""Algorithm 1 of online distillation, and its two reductions.

`jit` asks the teacher by exponential back-off; `fixed` is `jit` with a constant
stride; `frozen` is `jit` whose teacher is never asked.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from ojd import distill, schedules, updates
from ojd.models.student import Norms, Params, Student, blank_norms
from ojd.types import Frame, StepInfo
from ojd.updates.step import State as StepState
from ojd.updates.step import Tx

NORM_MODES = ("frame", "key_frame")


class HeldNorms(NamedTuple):
  """What the norms did on the last key frame."""

  norms: Norms
  are_known: jax.Array  # bool, False before the first key frame


class JitState(NamedTuple):
  """State of a student that learns on key frames."""

  params: Params
  opt_state: StepState
  schedule: schedules.BackoffState | tuple[()]
  t: jax.Array  # int32, the frame that comes next
  norms: HeldNorms | tuple[()] = ()  # empty where none are held


def jit(
  student: Student,
  tx: Tx,
  *,
  a_thresh: ArrayLike = 0.8,
  delta_min: int = 8,
  delta_max: int = 64,
  u_max: int = 8,
  u_min: int = 0,
  norm: str = "frame",
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
    norm: as for `scheduled`.
  """
  backoff = schedules.exponential_backoff(delta_min, delta_max, a_thresh)
  constants = dict(a_thresh=a_thresh, u_max=u_max, u_min=u_min, norm=norm)
  return scheduled(student, tx, backoff, **constants)


def fixed(
  student: Student,
  tx: Tx,
  *,
  stride: int = 8,
  a_thresh: ArrayLike = 0.8,
  u_max: int = 8,
  u_min: int = 0,
  norm: str = "frame",
) -> distill.System:
  """`jit` that asks the teacher on every stride-th frame, however it went."""
  schedule = schedules.fixed(stride)
  constants = dict(a_thresh=a_thresh, u_max=u_max, u_min=u_min, norm=norm)
  return scheduled(student, tx, schedule, **constants)


def frozen(student: Student) -> distill.System:
  """The student as it came: no teacher, no update."""
  tx, schedule = optax.identity(), schedules.never()
  return scheduled(student, tx, schedule, a_thresh=1.0, u_max=0, u_min=0)


def scheduled(
  student: Student,
  tx: Tx,
  schedule: schedules.Schedule,
  *,
  a_thresh: ArrayLike,
  u_max: int,
  u_min: int,
  norm: str = "frame",
  is_honest: bool = False,
  keep_best: bool = False,
  length: Callable[[jax.Array], ArrayLike] | None = None,
) -> distill.System:
  """Adapts on the key frames of any schedule that follows the accuracy.

  Args:
    student: init and apply of one frame.
    tx: the gradient step.
    schedule: when to ask the teacher.
    a_thresh: mean IoU that ends the updates.
    u_max: most updates on a key frame.
    u_min: least.
    norm: `frame`, every frame is normed by its own statistics; `key_frame`, a
      frame between key frames by those of the last one, which saves reading
      every activation twice.
    is_honest: whether the schedule follows the accuracy before the updates, in
      the place of that after them.
    keep_best: as for `distill.adapt`.
    length: likewise.
  """
  is_held = norm == "key_frame"

  def init(rng_key, frame):
    """The key is consumed."""
    params = student.init(rng_key, frame)
    norms = ()
    if is_held:
      blank = blank_norms(student, params, frame)
      norms = HeldNorms(blank, jnp.zeros((), bool))
    t = jnp.zeros((), jnp.int32)
    opt_state = updates.start(tx, params, frame)
    return JitState(params, opt_state, schedule.init(), t, norms)

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
      keep_norms=is_held,
      keep_best=keep_best,
      length=length,
    )
    accuracy = result.miou_before if is_honest else result.miou_after
    moved = schedule.advance(state.schedule, accuracy)
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
    if is_held:
      norms = norms_of(answering(state), result, frame)
      state = state._replace(norms=HeldNorms(norms, jnp.ones((), bool)))
    return state, result.classes, info

  def answering(state):
    return updates.serving_params(tx, state.params, state.opt_state)

  def norms_of(params, result, frame):
    """What the norms of the answering student do on the key frame."""
    if params is result.params:
      return result.norms  # of the last pass
    return student.observe(params, frame)[1]

  def predict(state, frame):
    logits = look(student, tx, state, frame)
    return state._replace(t=state.t + 1), distill.classify(logits)

  return distill.System(
    *(init, next_key, learn, predict, answering),
    answer=None if is_held else answer_of(student),
  )


def answer_of(student: Student) -> Callable[[Params, Frame], jax.Array]:
  """How a device answers that holds a student's parameters and no state."""
  return lambda params, frame: distill.classify(student.apply(params, frame))


def look(student: Student, tx: Tx, state: JitState, frame: Frame) -> jax.Array:
  """What the student sees on a frame between key frames; [H, W, C] logits."""
  params = updates.serving_params(tx, state.params, state.opt_state)
  if not state.norms:
    return student.apply(params, frame)
  held, are_known = state.norms
  return lax.cond(
    are_known,
    lambda: student.apply_held(params, held, frame),
    lambda: student.apply(params, frame),
  )
