"""Segmentation: a class for each pixel, judged by mean IoU."""

import jax
import jax.numpy as jnp

from ojd import losses, metrics
from ojd.types import BACKGROUND, IGNORE, Labels, Task


def segmentation(num_classes: int) -> Task:
  """The task of a student whose output is logits [H, W, C].

  Labels are `types.Labels`, an answer is a class map [H, W] uint8. The loss is
  the mean cross-entropy by pixel weight; the accuracy of a frame is the mean
  IoU over the classes that are present in labels or answer, background left
  out, over the pixels that have a weight.

  Args:
    num_classes: C, background included.
  """

  def accuracy(labels, classes):
    return metrics.frame_miou(
      labels.classes,
      classes,
      num_classes=num_classes,
      counts=labels.weights > 0,
    )

  def similarity(before, after):
    return metrics.frame_miou(
      before.classes,
      after.classes,
      num_classes=num_classes,
      counts=(before.weights > 0) & (after.weights > 0),
    )

  return Task(
    loss=losses.weighted_cross_entropy,
    accuracy=accuracy,
    decode=classify,
    similarity=similarity,
    as_answer=as_answer,
    without_weight=lambda labels: labels._replace(
      weights=jnp.zeros_like(labels.weights)
    ),
    blank=lambda frame: jnp.zeros(frame.shape[:2], jnp.uint8),
  )


def classify(logits: jax.Array) -> jax.Array:
  """The most likely class of each pixel, [..., H, W, C] -> uint8.

  The first of several; 0 where no logit is a number.
  """
  rows = jnp.swapaxes(logits, -1, -2)
  highest = rows[..., 0, :]
  classes = jnp.zeros(highest.shape, jnp.uint8)
  # One by one: XLA's CPU back end has no fast reduction of an axis so short.
  for i in range(1, rows.shape[-2]):
    is_higher = rows[..., i, :] > highest
    highest = jnp.where(is_higher, rows[..., i, :], highest)
    classes = jnp.where(is_higher, jnp.uint8(i), classes)
  return classes


def as_answer(labels: Labels) -> jax.Array:
  """Labels as an answer, [H, W] uint8; what is ignored is background."""
  return jnp.where(labels.classes == IGNORE, BACKGROUND, labels.classes)
