"""Consistency and flicker of a run's answers, and of its stream's own labels.

At the size of the frames that the run saw, over frames in succession: where one
could not be read, the frames around it are no pair.
"""

import itertools
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from ojd import temporal
from ojd.comparison import answers
from ojd.comparison.answers import Answer
from ojd.models import optical_flow


class Measures(NamedTuple):
  """Over a clip; None where nothing could be compared."""

  consistency: float | None
  flicker: float | None
  truth_consistency: float | None
  truth_flicker: float | None


def of_run(path: pathlib.Path) -> Measures:
  """Of a finished run with --save_masks."""
  found = answers.of_run(path, at_source=False)
  return measure(found.read, len(found.class_names))


def measure(
  clip: Iterable[Answer],
  num_classes: int,
  flow_fn: optical_flow.HostFlow | None = None,
) -> Measures:
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
  return Measures(
    *(temporal.consistency(ours), temporal.flicker(ours)),
    *(temporal.consistency(theirs), temporal.flicker(theirs)),
  )
