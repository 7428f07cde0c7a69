"""Steps that move all parameters and know this key frame alone."""

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
