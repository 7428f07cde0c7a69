"""Gradient-step variants: factories over optax, and the table of their names.

A variant is an `optax.GradientTransformation`, the (init, update) pair that
`distill.adapt` drives. Adding one is a factory and a row.
"""

from collections.abc import Callable
from typing import NamedTuple

import optax
from jax.typing import ArrayLike

MOMENTUM = 0.9


def sgd(learning_rate: ArrayLike) -> optax.GradientTransformation:
  """The paper's: stochastic gradient descent with momentum 0.9, all layers."""
  return optax.sgd(learning_rate, momentum=MOMENTUM)


def nesterov(learning_rate: ArrayLike) -> optax.GradientTransformation:
  """`sgd` that looks ahead; they coincide on the direction, not the length."""
  return optax.sgd(learning_rate, momentum=MOMENTUM, nesterov=True)


def adam(learning_rate: ArrayLike) -> optax.GradientTransformation:
  """Adam with its usual constants."""
  return optax.adam(learning_rate)


class Variant(NamedTuple):
  """A row of the table."""

  factory: Callable[[ArrayLike], optax.GradientTransformation]
  learning_rate: float  # where none is asked for


VARIANTS = {
  "sgd": Variant(sgd, 0.01),
  "nesterov": Variant(nesterov, 0.01),
  "adam": Variant(adam, 0.001),
}
