"""Temporal stability of class maps: consistency and flicker.

Consistency is the mean IoU between the answer to a frame and the answer to the
frame before, warped by the optical flow (Liu et al., 2020). As with the
accuracy of a run, the confusion matrix is summed over the clip, and background
is left out. Pixels that the flow does not explain are left out too: they come
from beyond the frame or looked different there. Flicker is the share of pixels
whose class changes, among those whose neighbourhood does not change.

Neither measures accuracy. A student that always answers background is perfectly
stable, and objects that move behind still pixels make labels flicker: compare
with the figures of the ground truth.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ojd import metrics
from ojd.models import optical_flow
from ojd.types import IGNORE

# In steps of 0..255. The mean of the channels may differ by this much from
# where the flow says that a pixel was.
MAX_RESIDUE = 32
# A pixel is still where no channel differs by more in the square around it;
# the noise of a camera is less.
MAX_CHANGE, NEIGHBOURHOOD = 10, 3


class Motion(NamedTuple):
  """The motion between two successive frames."""

  rows: np.ndarray  # [H, W] int, where each pixel was
  columns: np.ndarray  # [H, W] int
  is_followed: np.ndarray  # [H, W] bool, False where the flow fails
  is_still: np.ndarray  # [H, W] bool


class Totals(NamedTuple):
  """Sums over the pairs of a clip."""

  confusion: np.ndarray  # [C, C] int64, moved answer before by answer now
  num_changed: int = 0  # of the still pixels
  num_still: int = 0


def motion(
  frame_t: np.ndarray,
  frame_tm1: np.ndarray,
  flow_fn: optical_flow.HostFlow | None = None,
) -> Motion:
  """Compares a frame with the one before.

  Args:
    frame_t: [H, W, 3] uint8.
    frame_tm1: [H, W, 3] uint8.
    flow_fn: where each pixel was; None for OpenCV's dense inverse search.
  """
  flow_fn = flow_fn or optical_flow.dis("medium")
  height, width, _ = frame_t.shape
  limit = float(max(height, width))
  flow = np.rint(np.clip(flow_fn(frame_t, frame_tm1), -limit, limit))
  x, y = np.moveaxis(flow.astype(int), -1, 0)
  rows, columns = np.arange(height)[:, None] + y, np.arange(width) + x
  is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
  rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
  now, before = frame_t.astype(int), frame_tm1.astype(int)
  residue = np.abs(now - before[rows, columns]).sum(-1)
  return Motion(
    rows,
    columns,
    is_inside & (residue <= MAX_RESIDUE * now.shape[-1]),
    _is_still(np.abs(now - before).max(-1)),
  )


def _is_still(change):
  return ndimage.maximum_filter(change, NEIGHBOURHOOD) <= MAX_CHANGE


def start(num_classes: int) -> Totals:
  """Nothing counted yet."""
  return Totals(np.zeros((num_classes, num_classes), np.int64))


def add(
  totals: Totals, seen: Motion, classes_t: np.ndarray, classes_tm1: np.ndarray
) -> Totals:
  """Counts one pair of class maps.

  Args:
    totals: of the pairs before.
    seen: of the two frames.
    classes_t: [H, W] uint8; pixels of IGNORE in either do not count.
    classes_tm1: [H, W] uint8, of the frame before.
  """
  moved = classes_tm1[seen.rows, seen.columns]
  counts = seen.is_followed & (moved != IGNORE) & (classes_t != IGNORE)
  confusion = metrics.confusion_matrix(
    moved[counts], classes_t[counts], len(totals.confusion)
  )
  still = seen.is_still & (classes_t != IGNORE) & (classes_tm1 != IGNORE)
  has_changed = still & (classes_t != classes_tm1)
  return Totals(
    totals.confusion + confusion,
    totals.num_changed + int(np.count_nonzero(has_changed)),
    totals.num_still + int(np.count_nonzero(still)),
  )


def consistency(totals: Totals) -> float | None:
  """0..1, 1 where there was no object; None where no pixel was followed."""
  return metrics.run_miou(totals.confusion) if totals.confusion.any() else None


def flicker(totals: Totals) -> float | None:
  """0..1; None where no pixel was still."""
  return totals.num_changed / totals.num_still if totals.num_still else None
