"""Accuracy on synthetic worlds that nothing was trained on."""

from collections.abc import Callable, Sequence

import numpy as np

from ojd import labels, metrics
from ojd.pretraining import album
from ojd.streams import base as streams
from ojd.types import Sample

STREAMS = tuple(
  f"synthetic:{scene}?seed={seed}"
  for scene in ("street", "park", "sports", "night_fall", "cuts")
  for seed in (1, 2)
)
MEAN, WITH_BACKGROUND = "mean", "with background"


def evaluate(
  classify: Callable[[Sample], np.ndarray],
  addresses: Sequence[str],
  height: int,
  width: int,
  *,
  every: int,
) -> dict[str, float]:
  """IoU of each class and their means, against the exact masks.

  Args:
    classify: a class map [H, W] over album.CLASS_NAMES of a stream's frame.
    addresses: streams.
    height: of the frames.
    width: of the frames.
    every: evaluates every n-th frame.
  """
  names = album.CLASS_NAMES
  groups = labels.parse_groups("", names)
  confusion = np.zeros((len(names), len(names)), np.int64)
  for address in addresses:
    stream = streams.open_stream(address, height, width)
    truth_groups = labels.match_groups(groups, stream.spec.class_names)
    for t in range(0, stream.spec.num_frames, every):
      sample = next(iter(stream.read(t)))
      truth = np.take(truth_groups.lookup, sample.truth)
      answer = classify(sample)
      confusion += metrics.confusion_matrix(truth, answer, len(names))
  iou = metrics.iou_per_class(confusion)
  table = dict(zip(names[1:], iou[1:].tolist(), strict=True))
  table[MEAN] = metrics.run_miou(confusion)
  table[WITH_BACKGROUND] = float(np.nanmean(iou))
  return table


def in_words(table: dict[str, float]) -> str:
  """A line a class."""
  lines = [f"  {name:<15} {value:.3f}" for name, value in table.items()]
  return "\n".join(["IoU on unseen worlds:", *lines])
