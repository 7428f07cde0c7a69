"""Steps whose gradient is not finite are not made."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ojd.updates import plain
from ojd.updates.step import GradientStep, Tx, around, as_step


class GuardState(NamedTuple):
  """A step, and how often it was not made."""

  inner: Any
  num_skipped: jax.Array  # int32


def nonfinite_guard(learning_rate: ArrayLike) -> GradientStep:
  """`sgd` that passes over gradients that are not finite."""
  return guarded(plain.sgd(learning_rate))


def guarded(inner: Tx) -> GradientStep:
  """`inner`, of which such a gradient changes nothing, but is counted.

  `distill.adapt` itself undoes an update after which the loss is not finite,
  and ends the key frame; here neither parameters nor moments ever see it.
  """
  inner = as_step(inner)
  lifted = around(inner)

  def init(params, frame):
    return GuardState(inner.init(params, frame), jnp.zeros((), jnp.int32))

  def update(grads, moving, params, held):
    is_finite = jax.tree.reduce(
      lambda so_far, x: so_far & jnp.isfinite(x).all(), grads, jnp.array(True)
    )
    steps, moved = lifted.update(grads, moving, params, held)
    steps = jax.tree.map(lambda x: jnp.where(is_finite, x, 0), steps)
    kept = jax.tree.map(
      lambda new, old: jnp.where(is_finite, new, old), moved, moving
    )
    skipped = moving.num_skipped + (~is_finite).astype(jnp.int32)
    return steps, kept._replace(num_skipped=skipped)

  def num_skipped(moving):
    return moving.num_skipped + lifted.num_skipped(moving)

  return lifted._replace(init=init, update=update, num_skipped=num_skipped)
