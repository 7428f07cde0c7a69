"""`recorded:path=PATH`: answers of a recording, ours or that of LVS's authors.

PATH is a folder made by `python -m experiments.record`, a label file of LVS, or
a folder of them. Our recordings hold the identity of their stream and are
refused for any other. LVS's do not: with `--stream=lvs:DIR` they are matched by
the names of the chunks; with any other stream there must be just one, whose
frame t is the stream's frame t.

A recording of ours is a log (`ojd.formats.log`), one record a frame, whose
identity is a Description: whose answers they are, and of which stream. A
damaged answer is found when it is read; a file cut off in the middle of a
record loses that record and no other.
"""

import bisect
import itertools
import pathlib
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from ojd.errors import UserError
from ojd.formats import label_codec, lvs_labels
from ojd.formats import log as log_lib
from ojd.teachers import base
from ojd.types import Instances, Sample

LOG = "answers.bin"
_FORMER = "recording.json"  # of the first version
_FORMAT = log_lib.Format(b"OJDA", 1, "recording", is_lazy=True)
_MAX_FRAMES = 2**31
_LVS = "lvs"  # the kind in the identity of such a stream
_RENUMBERED = ("window", "concat")  # and of those with numbers of their own


_Side = Annotated[int, msgspec.Meta(ge=1, le=2**13)]
_Frames = Annotated[int, msgspec.Meta(ge=1, le=_MAX_FRAMES)]
_Names = Annotated[
  tuple[str, ...], msgspec.Meta(min_length=1, max_length=2**16)
]


class Description(msgspec.Struct, frozen=True):
  """Whose answers a recording holds, and to what."""

  kind: Literal["instances", "class_map"]
  teacher: str  # as --teacher named it
  class_names: _Names  # of the teacher
  stream: dict[str, Any]  # identity of the frames it saw
  height: _Side  # of those frames
  width: _Side
  num_frames: _Frames | None  # of the stream; None: its end is not known
  every: _Frames = 1  # every n-th frame is recorded


class MissingFrameError(LookupError):
  """The recording has no answer for a frame; others it may have."""


def kind_of(answer: Instances | np.ndarray) -> str:
  """The kind of recording that an answer belongs into."""
  return "instances" if isinstance(answer, Instances) else "class_map"


class Recording:
  """A recording opened for reading; an answer is checked when it is read."""

  def __init__(self, path: pathlib.Path | str):
    self.path = pathlib.Path(path).expanduser()
    if not is_recording(self.path):
      _refuse_former(self.path)
      raise UserError(
        f"{self.path} holds no recording; experiments.record makes one"
      )
    self._log = self.path / LOG
    found = log_lib.read(self._log, _FORMAT)
    self.description = _parse(found.identity, self._log)
    self._spans = {span.t: span for span in found.spans}
    if len(self._spans) < len(found.spans):
      raise UserError(f"{self._log} has a frame twice; record again")

  @property
  def frames(self) -> list[int]:
    """The recorded frames, ascending."""
    return list(self._spans)

  def __len__(self):
    return len(self._spans)

  def read(self, t: int) -> Instances | np.ndarray:
    """The answer for frame t."""
    span = self._spans.get(t)
    if span is None:
      raise MissingFrameError(f"{self.path} has no record of frame {t}")
    about = self.description
    try:
      with self._log.open("rb") as file:
        payload = log_lib.read_payload(file, span)
      return label_codec.decode_answer(
        about.kind, payload, about.height, about.width, len(about.class_names)
      )
    except OSError as error:
      raise log_lib.unreadable(self._log, error) from None
    except ValueError as error:
      raise UserError(
        f"{self._log}: the record of frame {t} is damaged ({error}); record "
        "again"
      ) from None


class Writer:
  """Appends answers to a recording, new or begun before.

  A begun one is continued after its last whole record, if it has the same
  description. It is locked against a second writer.
  """

  def __init__(self, path: pathlib.Path | str, description: Description):
    self.path = pathlib.Path(path).expanduser()
    self.description = description
    try:
      is_other = not is_recording(self.path) and any(self.path.iterdir())
    except FileNotFoundError:
      is_other = False
    except OSError as error:
      raise UserError(
        f"{self.path} cannot be written: {error.strerror}"
      ) from None
    if is_other:
      _refuse_former(self.path)
      raise UserError(
        f"{self.path} holds files that are not of a recording; "
        "name a new folder"
      )
    identity = msgspec.structs.asdict(description)
    self._log = log_lib.Writer(self.path / LOG, _FORMAT, identity)

  @property
  def last(self) -> int:
    """The frame recorded last; -1 before the first."""
    return self._log.spans[-1].t if self._log.spans else -1

  @property
  def num_records(self) -> int:
    return len(self._log.spans)

  @property
  def num_bytes(self) -> int:
    return self._log.num_bytes

  def write(self, t: int, answer: Instances | np.ndarray) -> None:
    """Appends the answer for frame t, which is later than those before."""
    about = self.description
    if not self.last < t < _MAX_FRAMES:
      raise ValueError(f"frame {t} comes after frame {self.last}")
    if kind_of(answer) != about.kind:
      raise UserError(
        f"{self.path}: the teacher's answer to frame {t} is {kind_of(answer)}, "
        f"those before were {about.kind}"
      )
    try:
      payload = label_codec.encode_answer(
        about.kind, answer, about.height, about.width, len(about.class_names)
      )
    except ValueError as error:
      raise UserError(
        f"the teacher's answer to frame {t} cannot be recorded: {error}"
      ) from None
    self._log.append(t, payload)

  def close(self) -> None:
    """Closes the file; the recording is whole at any time."""
    self._log.close()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()


def is_recording(path: pathlib.Path | str) -> bool:
  """Whether a folder holds a recording, whole or just begun."""
  return (pathlib.Path(path).expanduser() / LOG).exists()


def _refuse_former(path):
  if (path / _FORMER).exists():
    raise UserError(f"{path} is a recording of the former format; record again")


def _parse(content, path):
  """The Description of a log's identity."""
  try:
    return msgspec.convert(content, Description)
  except msgspec.ValidationError as error:
    raise UserError(f"{path} does not describe a recording: {error}") from None


class Recorded:
  """Answers from a recording of ours, for the stream that it was made of."""

  is_free = True

  def __init__(self, record: Recording):
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
      raise MissingFrameError(f"there is no label file for frame {sample.t}")
    labels = lvs_labels.load(path)
    if t not in labels:
      raise MissingFrameError(f"{path} has no labels of frame {t}")
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
    raise UserError("--teacher=recorded:path=PATH is missing")
  place = pathlib.Path(path).expanduser()
  if place.suffix == lvs_labels.SUFFIX and place.is_file():
    return _open_lvs([place], path, context)
  if not place.is_dir():
    raise UserError(
      f"--teacher=recorded:path={path}: there is no such recording; "
      "python -m experiments.record makes one"
    )
  files = lvs_labels.list_files(place)
  if files and not is_recording(place):
    return _open_lvs(files, path, context)
  return _open_ours(place, context)


def _open_ours(path, context):
  record = Recording(path)
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
