"""Losses of the student's logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ojd import xla
from ojd.types import Labels


def weighted_cross_entropy(logits: jax.Array, labels: Labels) -> jax.Array:
  """Weighted cross-entropy, averaged over the pixels that are not ignored.

      loss = sum_p w_p (-log softmax(logits_p)[class_p]) / |{p: w_p > 0}|

  It divides by the number of pixels with a weight above 0, not by the sum of
  weights, so that a larger object weight makes a larger loss.

  Args:
    logits: [H, W, C] float.
    labels: classes [H, W] integer, weights [H, W] float; where the weight is 0
      the class is not read and may be `IGNORE`.

  Returns:
    Scalar; 0 where every pixel is ignored.
  """
  count = jnp.maximum(jnp.sum(labels.weights > 0), 1)
  entropy = _cross_entropy(jnp.swapaxes(logits, -1, -2), labels.classes)
  # Without the barrier one thread computes and sums in a single slow loop.
  return jnp.sum(xla.cpu_barrier(labels.weights * entropy)) / count


@jax.custom_vjp
def _cross_entropy(rows, classes):
  """[H, C, W], [H, W] -> [H, W]; one class after the other.

  XLA's CPU back end has no fast sum over the few classes of a pixel, along
  whichever axis they lie.
  """
  return _cross_entropy_forward(rows, classes)[0]


def _cross_entropy_forward(rows, classes):
  planes = [rows[:, i] for i in range(rows.shape[1])]
  highest = functools.reduce(jnp.maximum, planes)
  total, picked = jnp.zeros_like(highest), jnp.zeros_like(highest)
  for i, plane in enumerate(planes):
    total += jnp.exp(plane - highest)
    picked = jnp.where(classes == i, plane, picked)
  log_total = xla.cpu_barrier(jnp.log(total) + highest)
  return log_total - picked, (rows, log_total, classes)


def _cross_entropy_backward(residuals, g):
  rows, log_total, classes = residuals
  index = lax.broadcasted_iota(jnp.int32, rows.shape, 1)
  hit = (classes[:, None] == index).astype(rows.dtype)
  no_gradient = np.zeros(classes.shape, jax.dtypes.float0)
  return (jnp.exp(rows - log_total[:, None]) - hit) * g[:, None], no_gradient


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
