"""Gradient steps that move all parameters, and wrappers around any step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ojd import specs
from ojd.models import parts
from ojd.updates import partition
from ojd.updates.step import GradientStep, Rate, Tx, as_step, lift

MOMENTUM = 0.9


def sgd(*, learning_rate: Rate = 0.01) -> optax.GradientTransformation:
  """Stochastic gradient descent with momentum 0.9, that of the JITNet paper.

      m <- 0.9 m + g,  params <- params - learning_rate m

  Args:
    learning_rate: factor of the momentum m.
  """
  return optax.sgd(learning_rate, momentum=MOMENTUM)


def nesterov(*, learning_rate: Rate = 0.01) -> optax.GradientTransformation:
  """SGD with Nesterov momentum: `sgd` along 0.9 m + g.

  Args:
    learning_rate: as in `sgd`.
  """
  return optax.sgd(learning_rate, momentum=MOMENTUM, nesterov=True)


def adam(*, learning_rate: Rate = 0.001) -> optax.GradientTransformation:
  """Adam (Kingma and Ba, 2015) with its usual constants.

  Args:
    learning_rate: about the length of a first step, in each coordinate.
  """
  return optax.adam(learning_rate)


def fast_head(
  *, learning_rate: Rate = 0.0004, speed: specs.Positive = 10.0
) -> GradientStep:
  """Adam with longer steps for the layer that makes the logits.

  The head has to learn the classes of a stream in a few frames, and from
  nothing where they are new. With a speed of 1 it is `adam`.

  Args:
    learning_rate: Adam's.
    speed: length of the head's steps over that of other steps.
  """
  inner = as_step(adam(learning_rate=learning_rate))

  def update(grads, carry, params, constants):
    steps, carry = inner.update(grads, carry, params, constants)
    head = parts.of_parts(partition.names(params), "head")
    faster = lambda name, step: speed * step if name in head else step
    return partition.map_named(faster, steps), carry

  return inner._replace(update=update)


class AverageState(NamedTuple):
  """State of a step and the average of the parameters that it made."""

  inner: Any
  average: Any  # of the parameters that train


def ema(
  *, learning_rate: Rate = 0.01, decay: specs.Fraction = 0.9
) -> GradientStep:
  """SGD whose averaged parameters answer between key frames.

  Args:
    learning_rate: as in `sgd`.
    decay: share of the average that an update keeps; with 0 it is `sgd`.
  """
  return averaged(sgd(learning_rate=learning_rate), decay)


def averaged(inner: Tx, decay: float = 0.9) -> GradientStep:
  """`inner`, with an exponential average of its parameters to answer with.

      average <- decay average + (1 - decay) params

  Key frames are answered and judged by the parameters themselves.
  """
  inner = as_step(inner)
  lifted = lift(inner)

  def init(params, frame):
    average = jax.tree.map(jnp.copy, params)  # a buffer of its own
    return AverageState(inner.init(params, frame), average)

  def update(grads, carry, params, constants):
    steps, carry = lifted.update(grads, carry, params, constants)
    newest = optax.apply_updates(params, steps)
    mix = lambda old, new: decay * old + (1 - decay) * new
    return steps, carry._replace(
      average=jax.tree.map(mix, carry.average, newest)
    )

  def serving_params(params, state):
    return partition.merge(state.average, params)

  return lifted._replace(
    init=init, update=update, serving_params=serving_params
  )


class GuardState(NamedTuple):
  """State of a step and the number of updates that were skipped."""

  inner: Any
  num_skipped: jax.Array  # int32


def nonfinite_guard(*, learning_rate: Rate = 0.01) -> GradientStep:
  """SGD that skips gradients that are not finite.

  Args:
    learning_rate: as in `sgd`.
  """
  return guarded(sgd(learning_rate=learning_rate))


def guarded(inner: Tx) -> GradientStep:
  """`inner`, except that a gradient that is not finite is skipped and counted.

  `distill.adapt` itself undoes an update after which the loss is not finite,
  and ends the key frame; here neither parameters nor moments ever see it.
  """
  inner = as_step(inner)
  lifted = lift(inner)

  def init(params, frame):
    return GuardState(inner.init(params, frame), jnp.zeros((), jnp.int32))

  def update(grads, carry, params, constants):
    is_finite = jax.tree.reduce(
      lambda so_far, x: so_far & jnp.isfinite(x).all(), grads, jnp.array(True)
    )
    steps, moved = lifted.update(grads, carry, params, constants)
    steps = jax.tree.map(lambda x: jnp.where(is_finite, x, 0), steps)
    kept = jax.tree.map(
      lambda new, old: jnp.where(is_finite, new, old), moved, carry
    )
    skipped = carry.num_skipped + (~is_finite).astype(jnp.int32)
    return steps, kept._replace(num_skipped=skipped)

  def num_skipped(carry):
    return carry.num_skipped + lifted.num_skipped(carry)

  return lifted._replace(init=init, update=update, num_skipped=num_skipped)
