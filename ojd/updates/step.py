"""What a gradient step is to `distill.adapt`: an optax pair with hooks.

What a step keeps from key frame to key frame is its state. While a key frame is
learnt from it is in two: `moving` changes with every update, and goes back
with an update that is undone; `held` stays as it is, and costs the loop nothing
however large it is.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ojd.types import Frame, Labels
from ojd.updates import partition
from ojd.updates.partition import Params

State = Any  # a pytree of arrays, as are the next two
Moving = Any
Held = Any
GradFn = Callable[[Frame, Labels], Params]


class GradientStep(NamedTuple):
  """Pure functions; by default each hook does nothing.

  All but `answer` are about the parameters that train: the others are None in
  their trees.
  """

  init: Callable[[Params, Frame], State]
  # (grads, moving, params, held) -> (steps to be added, moving)
  update: Callable[[Params, Moving, Params, Held], tuple[Params, Moving]]
  # Which parameters train, by their names "layer/.../leaf"; None: all.
  trains: Callable[[Collection[str]], Collection[str]] | None = None
  # A key frame begins: state -> (moving, held).
  begin: Callable[[State], tuple[Moving, Held]] = lambda state: (state, ())
  # What is descended: (grads, grad_fn, moving, held) -> grads. The first are
  # this frame's; grad_fn gives those of any other, at the same parameters.
  gradient: Callable[[Params, GradFn, Moving, Held], Params] = (
    lambda grads, grad_fn, moving, held: grads
  )
  # It is over: (moving, held, frame, labels) -> state.
  end: Callable[[Moving, Held, Frame, Labels], State] = (
    lambda moving, held, frame, labels: moving
  )
  # The parameters that answer between key frames: (params, state) -> params.
  answer: Callable[[Params, State], Params] = lambda params, state: params
  # Updates that were not made, since the beginning.
  num_skipped: Callable[[Moving], jax.Array] = lambda moving: jnp.zeros(
    (), jnp.int32
  )


Tx = GradientStep | optax.GradientTransformation


def as_step(tx: Tx) -> GradientStep:
  """The step itself, or an optax pair as one."""
  if isinstance(tx, GradientStep):
    return tx
  return GradientStep(
    init=lambda params, frame: tx.init(params),
    update=lambda grads, moving, params, held: tx.update(grads, moving, params),
  )


def start(tx: Tx, params: Params, frame: Frame) -> State:
  """The first state of a step.

  Args:
    tx: a step or an optax pair.
    params: all of the student's.
    frame: any, [H, W, 3] uint8; its size matters.
  """
  step = as_step(tx)
  trained, _ = partition.split(params, step.trains)
  return step.init(trained, frame)


def answer(tx: Tx, params: Params, state: State) -> Params:
  """The parameters that answer between key frames."""
  return as_step(tx).answer(params, state)


def around(inner: GradientStep) -> GradientStep:
  """`inner` over records whose field `inner` is its state; all else stays.

  A step built on another replaces `init` and those hooks that it has a use for.
  """

  def update(grads, moving, params, held):
    steps, moved = inner.update(grads, moving.inner, params, held)
    return steps, moving._replace(inner=moved)

  def begin(state):
    moving, held = inner.begin(state.inner)
    return state._replace(inner=moving), held

  def gradient(grads, grad_fn, moving, held):
    return inner.gradient(grads, grad_fn, moving.inner, held)

  def end(moving, held, frame, labels):
    state = inner.end(moving.inner, held, frame, labels)
    return moving._replace(inner=state)

  return inner._replace(
    update=update,
    begin=begin,
    gradient=gradient,
    end=end,
    answer=lambda params, state: inner.answer(params, state.inner),
    num_skipped=lambda moving: inner.num_skipped(moving.inner),
  )
