"""Confusion matrix and mean IoU, on the device and on the host."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ojd import xla
from ojd.types import BACKGROUND, IGNORE, Array


def frame_miou(
  labels: Array, classes: Array, *, num_classes: int, counts: Array
) -> jax.Array:
  """Mean IoU of one frame over the classes present in labels or answer.

      mean_c |labels = c and classes = c| / |labels = c or classes = c|

  Background and ignored pixels are left out; a frame with no object on either
  side counts 1.

  Args:
    labels: [H, W] integer, the teacher's class map.
    classes: [H, W] integer, the student's.
    num_classes: C.
    counts: [H, W] bool, False where ignored.

  Returns:
    Scalar float32 in [0, 1].
  """
  objects = jnp.arange(num_classes, dtype=jnp.int32) != BACKGROUND
  # Computed once, as bytes, and not again for every class.
  labels, classes = xla.cpu_barrier(
    tuple(
      jnp.where(counts, x, IGNORE).astype(jnp.uint8) for x in (labels, classes)
    )
  )

  def count(i):
    in_labels, in_classes = labels == i, classes == i
    return (
      _count_true(in_labels & in_classes),
      _count_true(in_labels | in_classes),
    )

  # A class at a time is far cheaper than a scatter-add for the few of a stream.
  intersection, union = lax.map(count, jnp.arange(num_classes, dtype=jnp.uint8))
  present = (union > 0) & objects
  iou = jnp.where(present, intersection / jnp.maximum(union, 1), 0.0)
  num_present = jnp.sum(present)
  mean = jnp.sum(iou) / jnp.maximum(num_present, 1)
  return jnp.where(num_present > 0, mean, 1.0).astype(jnp.float32)


def _count_true(mask):
  """[H, W] bool -> int32; summed in bytes first, over at most 255 rows."""
  height, width = mask.shape
  num_bands = -(-height // 255)
  rows = -(-height // num_bands)
  mask = jnp.pad(mask, ((0, num_bands * rows - height), (0, 0)))
  bands = mask.reshape(num_bands, rows, width)
  return jnp.sum(jnp.sum(bands, axis=1, dtype=jnp.uint8), dtype=jnp.int32)


def confusion_matrix(
  labels: np.ndarray, classes: np.ndarray, num_classes: int
) -> np.ndarray:
  """Counts pixels by (label, answer) on the host; [C, C] int64.

  Labels outside 0..C-1, `IGNORE` above all, are left out.
  """
  labels, classes = np.ravel(labels), np.ravel(classes)
  counted = labels < num_classes
  if not counted.all():
    labels, classes = labels[counted], classes[counted]
  pairs = labels.astype(np.int32) * num_classes + classes
  counts = np.bincount(pairs, minlength=num_classes**2)
  return counts.reshape(num_classes, num_classes).astype(np.int64)


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
  """IoU of each class from a confusion matrix; NaN where absent; [C]."""
  intersection = np.diag(confusion)
  union = confusion.sum(0) + confusion.sum(1) - intersection
  seen = union > 0
  return np.where(seen, intersection / np.maximum(union, 1), np.nan)


def run_miou(confusion: np.ndarray) -> float:
  """Mean IoU of a run over the classes present; 1 where there was none."""
  iou = np.delete(iou_per_class(confusion), BACKGROUND)
  seen = iou[~np.isnan(iou)]
  return float(seen.mean()) if seen.size else 1.0
