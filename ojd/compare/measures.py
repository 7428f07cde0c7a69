"""Measures of the answers of a finished run: J and F of DAVIS, steadiness.

Region similarity J is the IoU of the foreground. Boundary measure F is the
harmonic mean of precision and recall of its boundary pixels, of which one is
right when the other boundary is no farther away than 0.008 of the frame's
diagonal, rounded up: the usual approximation of a bipartite matching. Both are
means over the annotated frames but the first and the last, as the benchmark has
it where the first is given (Perazzi et al., 2016).

Consistency and flicker are of the answers from frame to frame, and of the
stream's own labels beside them, at the size of the frames that the run saw.

The answers are read from the class maps of --save_masks, which are at the size
of the source.
"""

import itertools
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ojd import labels, temporal
from ojd.errors import UserError
from ojd.formats import class_maps
from ojd.models import optical_flow
from ojd.run import workdir
from ojd.streams import base, compose
from ojd.types import IGNORE

TOLERANCE = 0.008  # of the diagonal


class Answer(NamedTuple):
  """What a run said of one frame; all of one size."""

  t: int
  frame: np.ndarray  # [H, W, 3] uint8
  classes: np.ndarray  # [H, W] uint8
  truth: np.ndarray | None  # [H, W] uint8, in classes of the run


class Answers(NamedTuple):
  """A run's."""

  class_names: tuple[str, ...]
  has_truth: bool  # of any of these classes
  read: Iterator[Answer]


def answers(path: pathlib.Path, at_source: bool) -> Answers:
  """Opens a run and its stream.

  Args:
    path: the workdir of a finished run with --save_masks.
    at_source: whether to look at the size of the source, where it has one, or
      at that of the frames that the run saw.
  """
  description = workdir.read_config(path)
  flags = description["flags"]
  stream = base.open_stream(flags["stream"], flags["height"], flags["width"])
  if at_source and stream.spec.source_size is not None:
    stream = base.open_stream(flags["stream"], *stream.spec.source_size)
  stream = compose.window(stream, flags["start_frame"], flags["every"])
  names = tuple(description["class_names"])
  members = tuple(map(tuple, description["class_members"]))
  groups = labels.known_groups(names, members)
  groups = labels.match_groups(groups, stream.spec.class_names)
  known = {name for group in members for name in group}
  has_truth = not known.isdisjoint(stream.spec.class_names)
  return Answers(
    names, has_truth, _read(path, stream, groups if has_truth else None)
  )


def _read(path, stream, groups):
  samples = stream.read()
  for t, classes in class_maps.read_masks(path):
    sample = next((sample for sample in samples if sample.t >= t), None)
    if sample is None or sample.t != t or sample.frame is None:
      raise RuntimeError(f"{path}: frame {t} of its stream cannot be read now")
    classes = class_maps.resize(classes, sample.frame.shape[:2])
    truth = None
    if groups is not None:
      truth = labels.regrouped(groups, sample.truth)
    yield Answer(t, sample.frame, classes, truth)


class Davis(NamedTuple):
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


def davis(path: pathlib.Path) -> Davis:
  """Of a finished run with --save_masks, over a stream of one object class."""
  pairs = (
    (region(truth, answer), boundary(truth, answer))
    for truth, answer in _masks(path)
  )
  inner = np.array(list(pairs))[1:-1]
  if not len(inner):
    return Davis(None, None, 0)
  return Davis(*inner.mean(0).tolist(), len(inner))


def _masks(path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Truth and answer of each annotated frame, at the size of the source."""
  found = answers(path, at_source=True)
  if len(found.class_names) != 2 or not found.has_truth:
    raise UserError(f"{path}: J and F are of one class with labels")
  for answer in found.read:
    if answer.truth is None:
      continue
    counts = answer.truth != IGNORE
    if counts.any():
      yield (answer.truth == 1) & counts, (answer.classes == 1) & counts


class Steadiness(NamedTuple):
  """Over a clip; None where nothing could be compared."""

  consistency: float | None
  flicker: float | None
  truth_consistency: float | None
  truth_flicker: float | None


def steadiness(path: pathlib.Path) -> Steadiness:
  """Of a finished run with --save_masks."""
  found = answers(path, at_source=False)
  return steadiness_of(found.read, len(found.class_names))


def steadiness_of(
  clip: Iterable[Answer],
  num_classes: int,
  flow_fn: optical_flow.HostFlow | None = None,
) -> Steadiness:
  """Holds two frames at a time.

  Args:
    clip: answers in the order of their frames.
    num_classes: C.
    flow_fn: that of `temporal.motion`.
  """
  ours = theirs = temporal.start(num_classes)
  for before, now in itertools.pairwise(clip):
    if now.t != before.t + 1:
      continue
    seen = temporal.motion(now.frame, before.frame, flow_fn)
    ours = temporal.add(ours, seen, now.classes, before.classes)
    if now.truth is not None and before.truth is not None:
      theirs = temporal.add(theirs, seen, now.truth, before.truth)
  return Steadiness(
    *(temporal.consistency(ours), temporal.flicker(ours)),
    *(temporal.consistency(theirs), temporal.flicker(theirs)),
  )
