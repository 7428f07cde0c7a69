"""The answers of a finished run beside the frames and the truth of its stream.

They are read from the class maps of --save_masks, which are at the size of the
source.
"""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ojd import labels
from ojd.formats import class_maps
from ojd.run import workdir
from ojd.streams import base, compose


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


def of_run(path: pathlib.Path, at_source: bool) -> Answers:
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
