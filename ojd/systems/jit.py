"""Algorithm 1 of online distillation, its two reductions, and `jit_plus`.

`jit` asks the teacher by exponential back-off; `fixed` is `jit` with a constant
stride; `frozen` is `jit` whose teacher is never asked.

Algorithm 1 measures the accuracy on the very frame that the student was just
fitted to, and so backs off from streams that it does not know. In `jit_plus`
the stride follows the accuracy before the updates; updates are more and larger,
and key frames are further apart.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from ojd import distill, schedules, updates
from ojd.models.student import Norms, Params, Student, blank_norms
from ojd.specs import Range, extends
from ojd.tasks import segmentation
from ojd.types import Frame, StepInfo, Task
from ojd.updates.step import State as StepState
from ojd.updates.step import Tx

MANY = Range(1, 2**30 - 1)  # twice a stride is still an int32


class HeldNorms(NamedTuple):
  """The statistics of the norms on the last key frame."""

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
  task: Task | None = None,
  a_thresh: Annotated[ArrayLike, Range(0, 1)] = 0.8,
  delta_min: Annotated[ArrayLike, MANY] = 8,
  delta_max: Annotated[ArrayLike, MANY] = 64,
  u_max: Annotated[ArrayLike, Range(0, 10**6)] = 8,
  u_min: Annotated[ArrayLike, Range(0, 10**6)] = 0,
  norm: Literal["frame", "key_frame"] = "frame",
) -> distill.System:
  """Algorithm 1: the teacher by exponential back-off, updates until accurate.

  On every stride-th frame up to `u_max` updates are made, until the accuracy
  reaches `a_thresh`; then the stride doubles if the accuracy is above it and
  halves if not, within `delta_min` and `delta_max` (Mullapudi et al., "Online
  Model Distillation for Efficient Video Inference", ICCV 2019).

  Args:
    task: what labels are; None: segmentation over the student's classes.
    a_thresh: accuracy that ends the updates and, exceeded, doubles the stride.
    delta_min: least frames between teacher calls.
    delta_max: most frames between teacher calls.
    u_max: most updates on a key frame.
    u_min: least updates; 1 is how the authors' own experiments behave.
    norm: statistics that norm a frame between key frames: `frame`, its own;
      `key_frame`, those of the last key frame, which is faster.
  """
  backoff = schedules.exponential_backoff(delta_min, delta_max, a_thresh)
  constants = dict(a_thresh=a_thresh, u_max=u_max, u_min=u_min, norm=norm)
  return scheduled(student, tx, backoff, task=task, **constants)


@extends(jit, without=("delta_min", "delta_max"))
def fixed(
  student: Student,
  tx: Tx,
  *,
  stride: Annotated[ArrayLike, MANY] = 8,
  **options: Any,
) -> distill.System:
  """Algorithm 1 with a constant stride: the teacher on every stride-th frame.

  `jit` with `delta_min` and `delta_max` equal to the stride.

  Args:
    stride: frames from one teacher call to the next.
    **options: those of `jit`.
  """
  return scheduled(student, tx, schedules.fixed(stride), **options)


def frozen(
  student: Student, tx: Tx | None = None, *, task: Task | None = None
) -> distill.System:
  """The student as it began: no teacher, no update.

  `jit` whose teacher is never asked.

  Args:
    tx: not used.
    task: as of `jit`.
  """
  del tx
  return scheduled(
    *(student, optax.identity(), schedules.never()),
    **dict(task=task, a_thresh=1.0, u_max=0, u_min=0),
  )


def scheduled(
  student: Student,
  tx: Tx,
  schedule: schedules.Schedule,
  *,
  a_thresh: ArrayLike,
  u_max: int,
  u_min: int,
  norm: str = "frame",
  task: Task | None = None,
  pre_update_schedule: bool = False,
  keep_best: bool = False,
  step_scale: Callable[[jax.Array], ArrayLike] | None = None,
) -> distill.System:
  """Adapts on the key frames of any schedule that follows the accuracy.

  Args:
    schedule: when to ask the teacher.
    a_thresh: accuracy that ends the updates.
    u_max: most updates on a key frame.
    u_min: least.
    norm: `frame`, every frame is normed by its own statistics; `key_frame`, a
      frame between key frames by those of the last one, which saves reading
      every activation twice.
    task: what labels are; None: segmentation over the student's classes.
    pre_update_schedule: whether the schedule follows the accuracy before the
      updates rather than that after them.
    keep_best: as of `distill.adapt`.
    step_scale: likewise.
  """
  task = task or segmentation(student.num_classes)
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
      task=task,
      keep_best=keep_best,
      step_scale=step_scale,
    )
    accuracy = result.miou_before if pre_update_schedule else result.miou_after
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
      norms = norms_of(serving_params(state), result, frame)
      state = state._replace(norms=HeldNorms(norms, jnp.ones((), bool)))
    return state, result.answer, info

  def serving_params(state):
    return updates.serving_params(tx, state.params, state.opt_state)

  def norms_of(params, result, frame):
    """What the norms of the serving student do on the key frame."""
    if params is result.params:
      return result.norms  # of the last pass
    return student.observe(params, frame)[1]

  def predict(state, frame):
    output = forward(student, tx, state, frame)
    return state._replace(t=state.t + 1), task.decode(output)

  serve = None if is_held else serve_fn(student, task)
  serving = distill.Serving(serving_params, serve)
  return distill.System(init, next_key, learn, predict, serving)


def serve_fn(student: Student, task: Task) -> Callable[[Params, Frame], Any]:
  """(params, frame) -> answer, of a device that holds no state."""
  return lambda params, frame: task.decode(student.apply(params, frame))


class Look(NamedTuple):
  """A student's answer to a labelled frame, and its accuracy."""

  answer: Any
  miou: jax.Array  # float32
  loss: jax.Array  # float32


def look(
  student: Student, task: Task, params: Params, frame: Frame, labels: Any
) -> Look:
  """The answer to a frame, and how it agrees with the labels."""
  output = student.apply(params, frame)
  answer = task.decode(output)
  accuracy = task.accuracy(labels, answer)
  return Look(answer, accuracy, task.loss(output, labels))


def forward(student: Student, tx: Tx, state: JitState, frame: Frame) -> Any:
  """The student's output on a frame between key frames."""
  params = updates.serving_params(tx, state.params, state.opt_state)
  if not state.norms:
    return student.apply(params, frame)
  held, are_known = state.norms
  return lax.cond(
    are_known,
    lambda: student.apply_held(params, held, frame),
    lambda: student.apply(params, frame),
  )


@extends(jit)
def jit_plus(
  student: Student,
  tx: Tx,
  *,
  pre_update_schedule: bool = True,
  target_margin: Annotated[float, Range(0, 1)] = 0.5,
  step_scale: Annotated[float, Range(0, 1000)] = 5.0,
  stride_scale: Annotated[float, Range(0.01, 1000)] = 1.25,
  **options: Any,
) -> distill.System:
  """Algorithm 1 whose stride follows the accuracy before the updates.

  It is `jit` with `pre_update_schedule=False`, `target_margin=0`,
  `step_scale=0` and `stride_scale=1`.

  Args:
    a_thresh: accuracy that, exceeded before any update, doubles the stride.
    pre_update_schedule: whether the stride follows the accuracy before the
      updates rather than after them.
    target_margin: how far the accuracy that ends the updates is moved from
      a_thresh towards 1.
    step_scale: updates are up to this much larger, at accuracy 0.
    stride_scale: factor of delta_min and of u_max.
    **options: those of `jit`.
  """
  a_thresh = options.pop("a_thresh")
  delta_min = _scaled(options.pop("delta_min"), stride_scale)
  delta_max = jnp.maximum(options.pop("delta_max"), delta_min)

  def scale(accuracy):
    return 1 + step_scale * (1 - accuracy)

  return scheduled(
    student,
    tx,
    schedules.exponential_backoff(delta_min, delta_max, a_thresh),
    a_thresh=a_thresh + target_margin * (1 - a_thresh),
    u_max=_scaled(options.pop("u_max"), stride_scale),
    pre_update_schedule=pre_update_schedule,
    step_scale=scale if step_scale else None,
    **options,
  )


def _scaled(count: ArrayLike, factor: float) -> jax.Array:
  return jnp.round(count * factor).astype(jnp.int32)
