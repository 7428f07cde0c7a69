"""The interface of gradient steps: an optax pair with hooks.

A step keeps its state from key frame to key frame. During the updates of a key
frame the state is split in two: the `carry` changes with every update,
and is restored where an update is undone; the `constants` do not change, and
cost the loop nothing however large they are.
"""

from collections.abc import Callable, Collection
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ojd import specs
from ojd.types import Frame, Labels
from ojd.updates import partition
from ojd.updates.partition import Params

State = Any  # a pytree of arrays, as are the next two
Carry = Any
Constants = Any
GradFn = Callable[[Frame, Labels], Params]
# An array under `vmap`.
Rate = Annotated[float | jax.Array, specs.Range(0, is_low_open=True)]


class GradientStep(NamedTuple):
  """Pure functions; by default each hook does nothing.

  All but `serving_params` see only the parameters that train: the others are
  None in their trees.
  """

  init: Callable[[Params, Frame], State]
  # (grads, carry, params, constants) -> (steps to be added, carry)
  update: Callable[[Params, Carry, Params, Constants], tuple[Params, Carry]]
  # Which parameters train, by their names "layer/.../leaf"; None: all.
  trains: Callable[[Collection[str]], Collection[str]] | None = None
  # Before the updates of a key frame: state -> (carry, constants).
  begin: Callable[[State], tuple[Carry, Constants]] = lambda state: (state, ())
  # The gradient to descend: (grads, grad_fn, carry, constants) -> grads. The
  # first are this frame's; grad_fn gives those of any other frame, at the same
  # parameters.
  gradient: Callable[[Params, GradFn, Carry, Constants], Params] = (
    lambda grads, grad_fn, carry, constants: grads
  )
  # After them: (carry, constants, frame, labels) -> state.
  end: Callable[[Carry, Constants, Frame, Labels], State] = (
    lambda carry, constants, frame, labels: carry
  )
  # The parameters that answer between key frames: (params, state) -> params.
  serving_params: Callable[[Params, State], Params] = lambda params, state: (
    params
  )
  # Updates that were skipped since the beginning.
  num_skipped: Callable[[Carry], jax.Array] = lambda carry: jnp.zeros(
    (), jnp.int32
  )


Tx = GradientStep | optax.GradientTransformation


def as_step(tx: Tx) -> GradientStep:
  """The step itself, or an optax pair as a step."""
  if isinstance(tx, GradientStep):
    return tx
  return GradientStep(
    init=lambda params, frame: tx.init(params),
    update=lambda grads, carry, params, constants: tx.update(
      grads, carry, params
    ),
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


def serving_params(tx: Tx, params: Params, state: State) -> Params:
  """The parameters that answer between key frames."""
  return as_step(tx).serving_params(params, state)


def lift(inner: GradientStep) -> GradientStep:
  """`inner` on records whose field `inner` is its state; other fields stay.

  A step built on another replaces `init` and the hooks that it changes.
  """

  def update(grads, carry, params, constants):
    steps, moved = inner.update(grads, carry.inner, params, constants)
    return steps, carry._replace(inner=moved)

  def begin(state):
    carry, constants = inner.begin(state.inner)
    return state._replace(inner=carry), constants

  def gradient(grads, grad_fn, carry, constants):
    return inner.gradient(grads, grad_fn, carry.inner, constants)

  def end(carry, constants, frame, labels):
    state = inner.end(carry.inner, constants, frame, labels)
    return carry._replace(inner=state)

  return inner._replace(
    update=update,
    begin=begin,
    gradient=gradient,
    end=end,
    serving_params=lambda params, state: inner.serving_params(
      params, state.inner
    ),
    num_skipped=lambda carry: inner.num_skipped(carry.inner),
  )
