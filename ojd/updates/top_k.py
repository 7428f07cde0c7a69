"""Coordinate descent by gradients, as in Adaptive Model Streaming.

On a key frame only a twentieth of all coordinates move: those that Adam wanted
to move farthest when it was last asked. They are what an edge device would be
sent. Adam itself sees all gradients and never forgets.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import flatten_util, lax
from jax.typing import ArrayLike

from ojd.updates.step import GradientStep

FRACTION = 0.05  # of all coordinates, together and not layer by layer


class TopKState(NamedTuple):
  """Of all P coordinates, whether they move or not."""

  adam: optax.OptState
  last: jax.Array  # [P] float32, Adam's last step; random before the first


def top_k(learning_rate: ArrayLike, fraction: float = FRACTION) -> GradientStep:
  """Adam on a part of the coordinates, chosen anew on each key frame.

  With a fraction of 1 it is `adam`.
  """
  adam = optax.adam(learning_rate)

  def init(params, frame):
    del frame  # of any size
    size = sum(x.size for x in jax.tree.leaves(params))
    # The first choice is random. Adam's first steps would all have one length.
    last = jax.random.uniform(jax.random.key(0), (size,))
    return TopKState(adam.init(params), last)

  def begin(state):
    count = count_of(fraction, state.last.size)
    return state, largest(jnp.abs(state.last), count)

  def update(grads, moving, params, is_chosen):
    steps, adam_state = adam.update(grads, moving.adam, params)
    last, unravel = flatten_util.ravel_pytree(steps)
    steps = unravel(jnp.where(is_chosen, last, 0))
    return steps, TopKState(adam_state, last)

  return GradientStep(init, update, begin=begin)


def count_of(fraction: float, size: int) -> int:
  """How many of so many coordinates a fraction is, one at least."""
  return max(1, round(fraction * size))


def largest(values: jax.Array, count: int) -> jax.Array:
  """A mask of exactly the `count` largest of [P] values, [P] bool."""
  _, where = lax.top_k(values, count)
  return jnp.zeros(values.shape, bool).at[where].set(True)
