"""The average of the weights answers; the weights themselves go on learning."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ojd.updates import partition, plain
from ojd.updates.step import GradientStep, Tx, around, as_step

DECAY = 0.9


class AverageState(NamedTuple):
  """A step, and the average of what it made."""

  inner: Any
  average: Any  # of the parameters that train


def ema(learning_rate: ArrayLike) -> GradientStep:
  """`sgd` whose parameters, averaged, answer between key frames."""
  return averaged(plain.sgd(learning_rate))


def averaged(inner: Tx, decay: float = DECAY) -> GradientStep:
  """`inner`, answered by an exponential average over its updates.

  Key frames are answered, and judged, by the parameters that learn from them.
  Of a decay of 0 nothing is averaged.
  """
  inner = as_step(inner)
  lifted = around(inner)

  def init(params, frame):
    average = jax.tree.map(jnp.copy, params)  # a buffer of its own
    return AverageState(inner.init(params, frame), average)

  def update(grads, moving, params, held):
    steps, moved = lifted.update(grads, moving, params, held)
    newest = optax.apply_updates(params, steps)
    mix = lambda old, new: decay * old + (1 - decay) * new
    return steps, moved._replace(
      average=jax.tree.map(mix, moved.average, newest)
    )

  def answer(params, state):
    return partition.merge(state.average, params)

  return lifted._replace(init=init, update=update, answer=answer)
