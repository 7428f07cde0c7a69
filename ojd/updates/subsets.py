"""Gradient steps that move a part of the parameters; the others stay as is.

A part is some layers, in which case the gradient is taken of those alone and
nothing is propagated to the layers before them, or some coordinates, in which
case Adam sees all gradients and a mask picks what moves.
"""

import functools
import re
from collections.abc import Callable, Collection
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import flatten_util, lax

from ojd import specs
from ojd.errors import UserError
from ojd.models import parts
from ojd.updates import partition
from ojd.updates.optimizers import adam, sgd
from ojd.updates.partition import Params
from ojd.updates.step import GradientStep, Rate, Tx, as_step

Share = Annotated[float, specs.Range(0, 1, is_low_open=True)]


def only(
  inner: Tx, trains: Callable[[Collection[str]], Collection[str]]
) -> GradientStep:
  """`inner` on the parameters whose names `trains` picks."""
  return as_step(inner)._replace(trains=trains)


def head(*, learning_rate: Rate = 0.03) -> GradientStep:
  """SGD of the layer that makes the logits.

  Args:
    learning_rate: as in `sgd`.
  """
  return _of_parts("head", sgd(learning_rate=learning_rate), "head")


def partial(*, learning_rate: Rate = 0.01) -> GradientStep:
  """SGD behind ShadowTutor's cut, which is behind the first decoder block.

  Args:
    learning_rate: as in `sgd`.
  """
  inner = sgd(learning_rate=learning_rate)
  return _of_parts("partial", inner, "decoder", "head")


def partial_adam(*, learning_rate: Rate = 0.01) -> GradientStep:
  """Adam behind the same cut, ShadowTutor's own step.

  Args:
    learning_rate: as in `adam`.
  """
  inner = adam(learning_rate=learning_rate)
  return _of_parts("partial_adam", inner, "decoder", "head")


def decoder(*, learning_rate: Rate = 0.01) -> GradientStep:
  """SGD of all behind the encoder: `partial` and the first decoder block.

  Args:
    learning_rate: as in `sgd`.
  """
  inner = sgd(learning_rate=learning_rate)
  return _of_parts("decoder", inner, "neck", "decoder", "head")


def norm_only(*, learning_rate: Rate = 0.03) -> GradientStep:
  """SGD of the norms' scales and biases, in all layers.

  Args:
    learning_rate: as in `sgd`.
  """
  pick = functools.partial(_pick, "norm_only", parts.of_norms)
  return only(sgd(learning_rate=learning_rate), pick)


def _of_parts(name, inner, *wanted):
  find = lambda names: parts.of_parts(names, *wanted)
  return only(inner, functools.partial(_pick, name, find))


def _pick(name, find, names):
  """What `find` finds; a UserError where that is nothing."""
  found = find(names)
  if not found:
    raise UserError(
      f"--update={name}: this student has no such layers; choose another one"
    )
  return found


class TopKState(NamedTuple):
  """State of `top_k`, of all P coordinates."""

  adam: optax.OptState
  last: jax.Array  # [P] float32, Adam's last step; random before the first


def top_k(
  *, learning_rate: Rate = 0.001, fraction: Share = 0.05
) -> GradientStep:
  """Adam on the coordinates that it last moved farthest.

  Coordinate descent by gradients, of Adaptive Model Streaming (Khani et al.,
  2021): they are chosen anew on each key frame, over all layers together, and
  are what an edge device is sent. With a fraction of 1 it is `adam`.

  Args:
    learning_rate: as in `adam`.
    fraction: of all coordinates, those that move.
  """
  inner = adam(learning_rate=learning_rate)

  def init(params, frame):
    del frame  # of any size
    size = sum(x.size for x in jax.tree.leaves(params))
    # The first choice is random. Adam's first steps would all have one length.
    last = jax.random.uniform(jax.random.key(0), (size,))
    return TopKState(inner.init(params), last)

  def begin(state):
    count = count_of(fraction, state.last.size)
    return state, largest(jnp.abs(state.last), count)

  def update(grads, carry, params, is_chosen):
    steps, adam_state = inner.update(grads, carry.adam, params)
    last, unravel = flatten_util.ravel_pytree(steps)
    steps = unravel(jnp.where(is_chosen, last, 0))
    return steps, TopKState(adam_state, last)

  return GradientStep(init, update, begin=begin)


def first_layers(
  *, learning_rate: Rate = 0.001, fraction: Share = 0.05
) -> GradientStep:
  """Adam on the coordinates nearest to the frame; a baseline of `top_k`.

  Args:
    learning_rate: as in `adam`.
    fraction: of all coordinates, those that move.
  """
  return _fixed(learning_rate, functools.partial(_ends, fraction, 0.0))


def last_layers(
  *, learning_rate: Rate = 0.001, fraction: Share = 0.05
) -> GradientStep:
  """Adam on the coordinates nearest to the logits; a baseline of `top_k`.

  Args:
    learning_rate: as in `adam`.
    fraction: of all coordinates, those that move.
  """
  return _fixed(learning_rate, functools.partial(_ends, 0.0, fraction))


def both_ends(
  *, learning_rate: Rate = 0.001, fraction: Share = 0.05
) -> GradientStep:
  """Adam on half of `first_layers` and half of `last_layers`.

  Args:
    learning_rate: as in `adam`.
    fraction: of all coordinates, those that move.
  """
  half = fraction / 2
  return _fixed(learning_rate, functools.partial(_ends, half, half))


def random_coordinates(
  *, learning_rate: Rate = 0.001, fraction: Share = 0.05
) -> GradientStep:
  """Adam on coordinates drawn once, before the first key frame.

  Args:
    learning_rate: as in `adam`.
    fraction: of all coordinates, those that move.
  """

  def pick(params):
    size = sum(x.size for x in jax.tree.leaves(params))
    drawn = jax.random.uniform(jax.random.key(0), (size,))
    return largest(drawn, count_of(fraction, size))

  return _fixed(learning_rate, pick)


def _fixed(learning_rate, pick: Callable[[Params], jax.Array]) -> GradientStep:
  """Adam with steps in the coordinates that `pick` marks alone."""
  inner = adam(learning_rate=learning_rate)

  def update(grads, carry, params, constants):
    del constants  # there are none
    steps, carry = inner.update(grads, carry, params)
    flat, unravel = flatten_util.ravel_pytree(steps)
    return unravel(jnp.where(pick(params), flat, 0)), carry

  return GradientStep(lambda params, frame: inner.init(params), update)


def count_of(fraction: float, size: int) -> int:
  """How many of `size` coordinates a fraction is, one at least."""
  return max(1, round(fraction * size))


def largest(values: jax.Array, count: int) -> jax.Array:
  """A mask of exactly the `count` largest of [P] values, [P] bool."""
  _, where = lax.top_k(values, count)
  return jnp.zeros(values.shape, bool).at[where].set(True)


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
  """Sort key of a parameter, from the frame to the logits."""
  part = parts.part_of(name)
  index = parts.PARTS.index(part) if part else len(parts.PARTS)
  pieces = re.split(r"(\d+)", name)
  return index, [int(x) if x.isdigit() else x for x in pieces]
