"""Region similarity J and boundary measure F of DAVIS (Perazzi et al., 2016).

J is the IoU of the foreground. F is the harmonic mean of precision and recall
of its boundary pixels, of which one is right when the other boundary is no
farther away than 0.008 of the frame's diagonal, rounded up: the usual
approximation of a bipartite matching. Both are means over the annotated frames
but the first and the last, as the benchmark has it where the first is given.
"""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ojd.comparison import answers
from ojd.errors import UserError
from ojd.types import IGNORE

TOLERANCE = 0.008  # of the diagonal


class Measures(NamedTuple):
  """Means over the frames of a run; None where there were none."""

  region: float | None  # J
  boundary: float | None  # F
  num_frames: int


def region(truth: np.ndarray, answer: np.ndarray) -> float:
  """J of two [H, W] bool masks; 1 where both are empty."""
  union = np.count_nonzero(truth | answer)
  return np.count_nonzero(truth & answer) / union if union else 1.0


def boundary(truth: np.ndarray, answer: np.ndarray) -> float:
  """F of two [H, W] bool masks; 1 where neither has a boundary."""
  truth, answer = outline(truth), outline(answer)
  num_truth, num_answer = np.count_nonzero(truth), np.count_nonzero(answer)
  if not num_truth or not num_answer:
    return float(num_truth == num_answer)
  reach = np.ceil(TOLERANCE * np.hypot(*truth.shape))
  precision = np.count_nonzero(answer & _near(truth, reach)) / num_answer
  recall = np.count_nonzero(truth & _near(answer, reach)) / num_truth
  both = precision + recall
  return 2 * precision * recall / both if both else 0.0


def outline(mask: np.ndarray) -> np.ndarray:
  """Pixels unlike their neighbour to the right, below or both; [H, W] bool.

  Beyond the frame a mask goes on as it is at its edge.
  """
  padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
  here, right = padded[:-1, :-1], padded[:-1, 1:]
  below, both = padded[1:, :-1], padded[1:, 1:]
  return (here ^ right) | (here ^ below) | (here ^ both)


def _near(pixels, reach):
  """Where one of the pixels is at most that far away."""
  return ndimage.distance_transform_edt(~pixels) <= reach


def of_run(path: pathlib.Path) -> Measures:
  """Of a finished run with --save_masks, over a stream of one object class."""
  pairs = (
    (region(truth, answer), boundary(truth, answer))
    for truth, answer in _masks(path)
  )
  inner = np.array(list(pairs))[1:-1]
  if not len(inner):
    return Measures(None, None, 0)
  return Measures(*inner.mean(0).tolist(), len(inner))


def _masks(path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Truth and answer of each annotated frame, at the size of the source."""
  found = answers.of_run(path, at_source=True)
  if len(found.class_names) != 2 or not found.has_truth:
    raise UserError(f"{path}: J and F are of one class with labels")
  for answer in found.read:
    if answer.truth is None:
      continue
    counts = answer.truth != IGNORE
    if counts.any():
      yield (answer.truth == 1) & counts, (answer.classes == 1) & counts
