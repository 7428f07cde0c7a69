"""Gradient steps of low rank: two thin factors of each convolution's change.

A kernel [KH, KW, I, O] is a matrix of KH*KW*I rows and O columns, to which a
product of two factors is added. The student's parameters hold the sum, the
state of the step the factors.
"""

import functools
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ojd import specs
from ojd.updates.step import GradientStep, Rate


class Factors(NamedTuple):
  """What was added to a kernel since the beginning, left @ right."""

  left: jax.Array  # [KH * KW * I, R] float32
  right: jax.Array  # [R, O] float32


class LowRankState(NamedTuple):
  """Factors by kernel, () for other parameters; Adam over both."""

  factors: dict
  adam: optax.OptState


def rank1(
  *,
  learning_rate: Rate = 0.01,
  rank: Annotated[int, specs.Range(1, 64)] = 1,
) -> GradientStep:
  """Adam on adapters of the convolutions, and on norms and biases themselves.

      kernel_t = kernel_0 + left_t right_t

  as in LoRA (Hu et al., 2021). The gradients are those of the factors, by the
  chain rule.

  Args:
    learning_rate: Adam's.
    rank: of the change of a kernel, at most.
  """
  adam = optax.adam(learning_rate)

  def init(params, frame):
    del frame  # of any size
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    fresh = functools.partial(_fresh, rank=rank)
    factors = tree.unflatten(map(fresh, keys, leaves))
    return LowRankState(factors, adam.init(_coordinates(params, factors)))

  def update(grads, carry, params, constants):
    del constants  # there are none
    factors = carry.factors
    steps, adam_state = adam.update(
      jax.tree.map(_pull_back, grads, factors),
      carry.adam,
      _coordinates(params, factors),
    )
    moved = jax.tree.map(_moved, params, factors, steps)
    steps = jax.tree.map(_step, params, factors, moved, steps)
    return steps, LowRankState(moved, adam_state)

  return GradientStep(init, update)


def _fresh(key, leaf, rank):
  """Factors whose product is nothing; () of what is no kernel."""
  if leaf.ndim != 4:
    return ()
  num_rows, num_columns = leaf.size // leaf.shape[-1], leaf.shape[-1]
  left = jax.random.normal(key, (num_rows, rank), leaf.dtype)
  return Factors(left, jnp.zeros((rank, num_columns), leaf.dtype))


def _coordinates(params, factors):
  """What is trained: factors of kernels, all else itself."""
  return jax.tree.map(lambda x, pair: pair or x, params, factors)


def _pull_back(gradient, factors):
  """The gradients of a kernel's factors; all else as it is."""
  if not factors:
    return gradient
  matrix = gradient.reshape(-1, gradient.shape[-1])
  return Factors(matrix @ factors.right.T, factors.left.T @ matrix)


def _moved(param, factors, step):
  del param  # gives the tree
  return optax.apply_updates(factors, step) if factors else ()


def _step(param, before, after, step):
  """What is added to a parameter."""
  if not before:
    return step
  product = after.left @ after.right - before.left @ before.right
  return product.reshape(param.shape)
