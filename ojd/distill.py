"""Online distillation: the System interface, the adapt loop, a whole stream.

Every method is a `System`, four pure functions of one state; the host loop, the
scan below, `vmap`, replay and servers all drive the same functions.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from ojd import updates
from ojd.models.student import Norms, Params, Student, blank_norms
from ojd.tasks import segmentation
from ojd.types import Frame, StepInfo, Task
from ojd.updates import partition
from ojd.updates.step import Carry, Tx
from ojd.updates.step import State as StepState

State = Any  # one pytree: everything of a system that changes


class Serving(NamedTuple):
  """How a device answers that holds the student's parameters and no state."""

  params: Callable[[State], Params]  # those that answer after this state
  # (params, frame) -> answer; None where `System.predict` answers by more than
  # the parameters, so that such a device would answer otherwise.
  predict: Callable[[Params, Frame], Any] | None = None
  # (state, how many) -> state: frames pass that only the device sees.
  skip: Callable[[State, ArrayLike], State] = lambda state, num: state._replace(
    t=state.t + num
  )
  # float32[], multiply-accumulates / 1e9 of the convolutions of all answers so
  # far; None where each answer is one pass of the whole student.
  gmac: Callable[[State], jax.Array] | None = None


class System(NamedTuple):
  """A method: four pure functions, made by a factory in `ojd/systems`."""

  init: Callable[[jax.Array, Frame], State]  # (rng_key, frame) -> state
  # state -> int32[], the next frame that the teacher must see; read after each
  # frame, so that a `predict` may bring it forward.
  next_key: Callable[[State], jax.Array]
  # A key frame: train, move the schedule; the last forward pass is the answer.
  learn: Callable[[State, Frame, Any], tuple[State, Any, StepInfo]]
  # Every other frame: (state, frame) -> (state, answer).
  predict: Callable[[State, Frame], tuple[State, Any]]
  serving: Serving | None = None  # None: there is no student


class AdaptResult(NamedTuple):
  """The student after a key frame, and how it went."""

  params: Params
  opt_state: StepState
  answer: Any  # of the last finite forward pass
  num_updates: jax.Array  # int32
  num_rolled_back: jax.Array  # int32
  miou_before: jax.Array  # float32
  miou_after: jax.Array  # float32
  loss: jax.Array  # float32
  grad_norm: jax.Array  # float32
  norms: Norms | tuple[()]  # of that pass, where they are kept


class _AdaptLoop(NamedTuple):
  """Carry of the loop: what is proven so far and what is to be tried next.

  Of the parameters those that train, of the step's state the carry.
  """

  proven: AdaptResult
  params: Params
  opt_state: Carry
  grad_norm: jax.Array
  num_tried: jax.Array  # int32, updates that led to `params`
  is_done: jax.Array


def adapt(
  student: Student,
  tx: Tx,
  params: Params,
  opt_state: StepState,
  frame: Frame,
  labels: Any,
  *,
  task: Task | None = None,
  a_thresh: ArrayLike,
  u_max: ArrayLike,
  u_min: ArrayLike = 0,
  keep_norms: bool = False,
  keep_best: bool = False,
  step_scale: Callable[[jax.Array], ArrayLike] | None = None,
) -> AdaptResult:
  """Updates until accurate or u_max, in one `lax.while_loop`.

  Lines 5-13 of Algorithm 1: predict, compare, and only then decide whether to
  update, so that u updates take u + 1 forward and u backward passes. A pass
  whose loss is not finite ends the loop and undoes the update before it.

  Args:
    student: init and apply of one frame.
    tx: the gradient step; what it does not train is no part of the backward
      pass.
    params: the student's parameters.
    opt_state: of `tx`, first of `updates.start`.
    frame: [H, W, 3] uint8.
    labels: of the task.
    task: what labels are; None: segmentation over the student's classes.
    a_thresh: accuracy from which on no update is made.
    u_max: most updates.
    u_min: updates made however accurate the student is.
    keep_norms: whether to return what the norms did in the last pass.
    keep_best: whether the most accurate of the students that were tried goes
      on, with the step's state of that time, instead of the last one.
    step_scale: from the accuracy before any update to a factor of all updates;
      None: 1.
  """
  task = task or segmentation(student.num_classes)
  step = updates.as_step(tx)
  trained, others = partition.split(params, step.trains)
  carry, constants = step.begin(opt_state)

  def forward(trained):
    params = partition.merge(trained, others)
    if keep_norms:
      return student.observe(params, frame)
    return student.apply(params, frame), ()

  def loss_fn(trained):
    output, norms = forward(trained)
    return task.loss(output, labels), (task.decode(output), norms)

  def loss_of(trained, frame, labels):
    output = student.apply(partition.merge(trained, others), frame)
    return task.loss(output, labels)

  def turn(loop: _AdaptLoop) -> _AdaptLoop:
    loss, backward, (answer, norms) = jax.vjp(
      loss_fn, loop.params, has_aux=True
    )
    accuracy = task.accuracy(labels, answer)
    is_first = loop.num_tried == 0
    tried = AdaptResult(
      params=loop.params,
      opt_state=loop.opt_state,
      answer=answer,
      num_updates=loop.num_tried,
      num_rolled_back=loop.proven.num_rolled_back,
      miou_before=jnp.where(is_first, accuracy, loop.proven.miou_before),
      miou_after=accuracy,
      loss=loss,
      grad_norm=loop.grad_norm,
      norms=norms,
    )
    is_finite = jnp.isfinite(loss)
    num_rolled_back = loop.proven.num_rolled_back + ~is_finite
    before = loop.proven._replace(num_rolled_back=num_rolled_back)
    keep = is_finite
    if keep_best:
      keep &= accuracy > loop.proven.miou_after
    # The first pass has nothing before it to go back to.
    keep |= is_first
    proven = jax.tree.map(
      lambda new, old: jnp.where(keep, new, old), tried, before
    )
    is_wanted = (accuracy < a_thresh) | (loop.num_tried < u_min)
    is_wanted &= is_finite & (loop.num_tried < u_max)

    def update():
      (grads,) = backward(jnp.ones_like(loss))
      grad_fn = functools.partial(jax.grad(loss_of), loop.params)
      grads = step.gradient(grads, grad_fn, loop.opt_state, constants)
      steps, opt_state = step.update(
        grads, loop.opt_state, loop.params, constants
      )
      if step_scale is not None:
        steps = optax.tree.scale(step_scale(tried.miou_before), steps)
      norm = optax.tree.norm(grads)
      # A step that is not made has no norm.
      norm = jnp.where(jnp.isfinite(norm), norm, loop.grad_norm)
      return optax.apply_updates(loop.params, steps), opt_state, norm

    def stop():
      return loop.params, loop.opt_state, loop.grad_norm

    params, opt_state, grad_norm = lax.cond(is_wanted, update, stop)
    num_tried = loop.num_tried + is_wanted.astype(jnp.int32)
    return _AdaptLoop(
      proven, params, opt_state, grad_norm, num_tried, ~is_wanted
    )

  zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
  blank = task.blank(frame)
  no_norms = blank_norms(student, params, frame) if keep_norms else ()
  first = AdaptResult(
    trained, carry, blank, none, none, zero, zero, zero, zero, no_norms
  )
  loop = _AdaptLoop(first, trained, carry, zero, none, jnp.zeros((), bool))
  loop = lax.while_loop(lambda loop: ~loop.is_done, turn, loop)
  result, num_updates = loop.proven, loop.proven.num_updates
  if keep_best:  # those after the best were made, too
    num_updates = loop.num_tried - result.num_rolled_back
  num_skipped = step.num_skipped(result.opt_state) - step.num_skipped(carry)
  return result._replace(
    params=partition.merge(result.params, others),
    opt_state=step.end(result.opt_state, constants, frame, labels),
    num_updates=num_updates - num_skipped,
    num_rolled_back=result.num_rolled_back + num_skipped,
  )


class _ScanCarry(NamedTuple):
  state: State
  t: jax.Array  # int32, frames seen
  stride: jax.Array  # int32, of the last key frame


def scan_stream(
  system: System,
  state: State,
  frames: Frame,
  labels: Any,
  t: ArrayLike = 0,
  *,
  axis_name: str | None = None,
  without_weight: Callable[[Any], Any] | None = None,
) -> tuple[State, tuple[Any, StepInfo]]:
  """Runs a system over recorded frames and labels inside one `lax.scan`.

  The same trajectory as the host loop's on the same labels; `vmap` over what
  the system's factory closes over makes sweeps.

  Args:
    system: any.
    state: of `system.init`, or one that has seen t frames.
    frames: [T, H, W, 3] uint8.
    labels: of the task, [T, ...] each leaf; read on key frames only.
    t: frames that the state has seen.
    axis_name: of the `vmap` around this, if any. Without it every lane learns
      on every frame, and most of that is thrown away.
    without_weight: of the task; under a `vmap` a lane that has no key frame
      gets such labels and so does not hold up the others.

  Returns:
    The state after the last frame, and by frame the answers [T, ...] and the
    infos, fields [T]; frames that are no key frames have only `stride` set.
  """

  def learn(carry, frame, label):
    return system.learn(carry.state, frame, label)

  def predict(carry, frame, label):
    del label  # not asked for
    state, answer = system.predict(carry.state, frame)
    return state, answer, empty._replace(stride=carry.stride)

  def learn_if(is_key, carry, frame, label):
    pick = lambda new, old: jnp.where(is_key, new, old)
    if without_weight is not None:
      label = jax.tree.map(pick, label, without_weight(label))
    learned = learn(carry, frame, label)
    return jax.tree.map(pick, learned, predict(carry, frame, label))

  def step(carry, inputs):
    frame, label = inputs
    is_key = system.next_key(carry.state) == carry.t
    is_any, learn_some = is_key, learn
    if axis_name is not None:
      # The same for all lanes: a condition that differs is no branch at all.
      is_any = lax.pmax(is_key.astype(jnp.int32), axis_name) > 0
      learn_some = functools.partial(learn_if, is_key)
    state, answer, info = lax.cond(
      is_any, learn_some, predict, carry, frame, label
    )
    return _ScanCarry(state, carry.t + 1, info.stride), (answer, info)

  _, _, shapes = jax.eval_shape(
    system.learn, state, frames[0], jax.tree.map(lambda x: x[0], labels)
  )
  empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  first = _ScanCarry(state, jnp.asarray(t, jnp.int32), jnp.zeros((), jnp.int32))
  carry, outputs = lax.scan(step, first, (frames, labels))
  return carry.state, outputs
