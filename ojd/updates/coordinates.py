"""Adam on a part of the coordinates that is chosen once, for all key frames.

What `top_k` is measured against: the first layers, the last ones, half of
either, or any. Adam itself sees all gradients, as there.
"""

import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import flatten_util
from jax.typing import ArrayLike

from ojd.models import parts
from ojd.updates import partition
from ojd.updates.partition import Params
from ojd.updates.step import GradientStep
from ojd.updates.top_k import FRACTION, count_of, largest


def first(learning_rate: ArrayLike, fraction: float = FRACTION) -> GradientStep:
  """Those nearest to the frame."""
  return _fixed(learning_rate, functools.partial(_ends, fraction, 0.0))


def last(learning_rate: ArrayLike, fraction: float = FRACTION) -> GradientStep:
  """Those nearest to the logits."""
  return _fixed(learning_rate, functools.partial(_ends, 0.0, fraction))


def both(learning_rate: ArrayLike, fraction: float = FRACTION) -> GradientStep:
  """Half of `first` and half of `last`."""
  half = fraction / 2
  return _fixed(learning_rate, functools.partial(_ends, half, half))


def scattered(
  learning_rate: ArrayLike, fraction: float = FRACTION
) -> GradientStep:
  """Any of them, drawn at random before the first key frame."""

  def pick(params):
    size = sum(x.size for x in jax.tree.leaves(params))
    drawn = jax.random.uniform(jax.random.key(0), (size,))
    return largest(drawn, count_of(fraction, size))

  return _fixed(learning_rate, pick)


def _fixed(learning_rate, pick: Callable[[Params], jax.Array]) -> GradientStep:
  """Adam, of whose steps only those of the coordinates picked are made."""
  adam = optax.adam(learning_rate)

  def update(grads, moving, params, held):
    steps, moved = adam.update(grads, moving, params)
    flat, unravel = flatten_util.ravel_pytree(steps)
    return unravel(jnp.where(pick(params), flat, 0)), moved

  return GradientStep(lambda params, frame: adam.init(params), update)


def _ends(first, last, params):
  """Fractions of all coordinates from either end of the network, [P] bool."""
  names = partition.names(params)
  sizes = [x.size for x in jax.tree.leaves(params)]
  starts = np.cumsum([0, *sizes])
  order = sorted(range(len(names)), key=lambda i: _place(names[i]))
  places = np.concatenate([starts[i] + np.arange(sizes[i]) for i in order])
  mask = np.zeros(len(places), bool)
  mask[places[: round(first * len(places))]] = True
  mask[places[len(places) - round(last * len(places)) :]] = True
  return jnp.asarray(mask)


def _place(name):
  """Where a parameter is on the way from the frame to the logits."""
  part = parts.part_of(name)
  index = parts.PARTS.index(part) if part else len(parts.PARTS)
  pieces = re.split(r"(\d+)", name)
  return index, [int(x) if x.isdigit() else x for x in pieces]
