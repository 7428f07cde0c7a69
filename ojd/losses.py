"""What an update lowers."""

import jax
import jax.numpy as jnp
import optax

from ojd.types import Labels


def weighted_cross_entropy(logits: jax.Array, labels: Labels) -> jax.Array:
  """Mean of weight x cross-entropy over the pixels that count.

  The mean is plain: it divides by the number of pixels with a weight above 0,
  not by the sum of weights, so heavier objects make a larger loss.

  Args:
    logits: [H, W, C] float.
    labels: classes [H, W] integer, weights [H, W] float; where the weight is 0
      the class is not looked at and may be `IGNORE`.

  Returns:
    Scalar; 0 where every pixel is ignored.
  """
  # A one-hot product rather than a gather: its gradient is elementwise, that
  # of a gather a scatter, which is a loop over pixels on the CPU.
  targets = jax.nn.one_hot(labels.classes, logits.shape[-1])
  entropy = optax.softmax_cross_entropy(logits, targets)
  count = jnp.maximum(jnp.sum(labels.weights > 0), 1)
  return jnp.sum(labels.weights * entropy) / count
