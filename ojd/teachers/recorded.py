"""`recorded:path=PATH`: answers of a recording, ours or that of LVS's authors.

PATH is a folder made by `python -m experiments.record`, a label file of LVS, or
a folder of them. Our recordings hold the identity of their stream and are
refused for any other. LVS's do not: with `--stream=lvs:DIR` they are matched by
the names of the chunks; with any other stream there must be just one, whose
frame t is the stream's frame t.
"""

import bisect
import itertools
import pathlib

import numpy as np

from ojd.errors import UserError
from ojd.formats import log as log_lib
from ojd.formats import lvs_labels
from ojd.teachers import base, recording
from ojd.types import Instances, Sample

_LVS = "lvs"  # the kind in the identity of such a stream
_RENUMBERED = ("window", "concat")  # and of those with numbers of their own


class Recorded:
  """Answers from a recording of ours, for the stream that it was made of."""

  is_free = True

  def __init__(self, record: recording.Recording):
    self.class_names = record.description.class_names
    self._record = record

  def __call__(self, sample: Sample) -> Instances | np.ndarray:
    return self._record.read(sample.t)


class RecordedLvs:
  """Answers from label files of LVS, each in charge of a run of frames."""

  class_names = lvs_labels.COCO_NAMES
  is_free = True

  def __init__(
    self,
    paths: list[pathlib.Path | None],
    starts: list[int],
    height: int,
    width: int,
  ):
    """Takes the files by chunk, None where there is none, and first frames."""
    self._paths, self._starts = paths, starts
    self._size = height, width

  def __call__(self, sample: Sample) -> Instances:
    chunk = bisect.bisect_right(self._starts, sample.t) - 1
    path, t = self._paths[chunk], sample.t - self._starts[chunk]
    if path is None:
      raise recording.MissingFrameError(
        f"there is no label file for frame {sample.t}"
      )
    labels = lvs_labels.load(path)
    if t not in labels:
      raise recording.MissingFrameError(f"{path} has no labels of frame {t}")
    return labels.instances(t, *self._size)


def make_teacher(
  context: base.Context, *, path: str = ""
) -> Recorded | RecordedLvs:
  """Labels of a recording; one of another stream is refused.

  Args:
    context: the stream.
    path: a recording, a label file of LVS, or a folder of them.
  """
  if not path:
    raise UserError("--teacher=recorded:path=PATH: where is the recording?")
  place = pathlib.Path(path).expanduser()
  if place.suffix == lvs_labels.SUFFIX and place.is_file():
    return _open_lvs([place], path, context)
  if not place.is_dir():
    raise UserError(
      f"--teacher=recorded:path={path}: there is no such recording; "
      "python -m experiments.record makes one"
    )
  files = lvs_labels.list_files(place)
  if files and not recording.is_recording(place):
    return _open_lvs(files, path, context)
  return _open_ours(place, context)


def _open_ours(path, context):
  record = recording.Recording(path)
  about = record.description
  differing = log_lib.differences(
    {**about.stream, "height": about.height, "width": about.width},
    {
      **context.stream_identity,
      "height": context.height,
      "width": context.width,
    },
  )
  if differing:
    raise UserError(
      f"--teacher=recorded:path={path} is of another stream: "
      + "; ".join(differing)
    )
  if not len(record):
    raise UserError(f"--teacher=recorded:path={path} holds no frames")
  return Recorded(record)


def _open_lvs(files, path, context):
  size = context.height, context.width
  kind = context.stream_identity.get("kind")
  if kind in _RENUMBERED:
    raise UserError(
      f"--teacher=recorded:path={path} numbers the frames of a whole "
      "stream; leave out --start_frame, --every and concat:"
    )
  if kind != _LVS:
    if len(files) > 1:
      raise UserError(
        f"--teacher=recorded:path={path} holds {len(files)} label files; "
        "name one of them, or give --stream=lvs:DIR"
      )
    return RecordedLvs([files[0]], [0], *size)
  by_chunk = {lvs_labels.chunk_of(path): path for path in files}
  chunks = context.stream_identity["chunks"]
  paths = [by_chunk.get(name) for name, _ in chunks]
  if not any(paths):
    raise UserError(
      f"--teacher=recorded:path={path} is of another stream: it has no "
      f"labels of {chunks[0][0]}"
    )
  counts = [count for _, count in chunks]
  starts = list(itertools.accumulate(counts[:-1], initial=0))
  return RecordedLvs(paths, starts, *size)
