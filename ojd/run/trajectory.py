"""The trajectory of a run: all labels of the teacher, and all decisions.

With it a run can be replayed, or resumed, without asking the teacher again. It
is a log (`ojd.formats.log`) in a folder of its own, with one record per request
in the order of the frames.
"""

import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import msgspec

from ojd.distill import State
from ojd.errors import UserError
from ojd.formats import label_codec
from ojd.formats import log as log_lib
from ojd.run import state_arrays
from ojd.types import Labels, StepInfo

LOG = "log.bin"
KEY, EVAL, FAILED = "key", "eval", "failed"
KINDS = (KEY, EVAL, FAILED)

_FORMAT = log_lib.Format(b"OJDT", 4, "trajectory log")
_MAX_PROBLEM_BYTES = 1 << 16
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Hash = Annotated[
  str, msgspec.Meta(pattern="^([0-9a-f]{2})*$", max_length=2 * 65535)
]


class Decision(NamedTuple):
  """The update on a key frame, and its result."""

  num_updates: _Count
  num_rolled_back: _Count
  stride: _Count
  next_key: _Count
  miou_before: float
  miou_after: float
  loss: float  # this and the other floats may be infinite or NaN
  grad_norm: float
  params_hash: _Hash  # of the student after the update, in hexadecimal
  leaf_hashes: _Hash = ""  # of its single arrays (`state_arrays.Hashes`)
  # Frames until the labels arrived, or with --link until the update arrived.
  delay: _Count | None = None
  key_t: _Count | None = None  # the labeled frame, if it is not t


class Record(NamedTuple):
  """A request to the teacher, and its answer.

  `packed` is decoded on demand, since many readers need no labels.
  """

  t: int  # the frame at which the answer arrived
  kind: str  # "key": learned from, "eval": evaluation only, "failed": no labels
  decision: Decision | None = None  # of a "key"
  packed: bytes = b""  # labels of a "key" or an "eval", by `label_codec`
  problem: str = ""  # of a "failed"

  @property
  def frame_t(self) -> int:
    """The labeled frame."""
    late = self.decision and self.decision.key_t
    return self.t if late is None else late

  def labels(self) -> Labels | None:
    """The teacher's labels; None if it failed."""
    if self.kind == FAILED:
      return None
    try:
      return label_codec.decode(self.packed)
    except ValueError as error:
      raise UserError(
        f"the labels of frame {self.t} are damaged ({error})"
      ) from None


def key_record(t: int, labels: Labels, decision: Decision) -> Record:
  """The record of labels that the student learned from."""
  return Record(t, KEY, decision, label_codec.encode(labels))


def eval_record(t: int, labels: Labels) -> Record:
  """The record of labels that only served for evaluation."""
  return Record(t, EVAL, packed=label_codec.encode(labels))


def failed_record(t: int, problem: str) -> Record:
  """The record of a failed request; a long problem is cut off."""
  # File names in the problem may not be valid text.
  text = problem.encode(errors="backslashreplace")[:_MAX_PROBLEM_BYTES]
  return Record(t, FAILED, problem=text.decode(errors="ignore"))


# Payload of a "key": MessagePack, validated when it is read.
_decode = msgspec.msgpack.Decoder(
  tuple[Decision, Annotated[bytes, msgspec.Meta(min_length=1)]]
).decode


def pack(record: Record) -> bytes:
  """Encodes a record for the log; ValueError if it is invalid."""
  if record.kind == FAILED:
    return record.problem.encode()
  if record.kind not in KINDS or not record.packed:
    raise ValueError(f"frame {record.t}: a {record.kind} without labels")
  if record.kind == EVAL:
    return record.packed
  payload = msgspec.msgpack.encode((record.decision, record.packed))
  _decode(payload)  # refuses what readers would refuse
  return payload


def unpack(t: int, kind: str, payload: bytes) -> Record:
  """Decodes a record of the log; ValueError if it is invalid."""
  if kind == FAILED:
    return Record(t, kind, problem=payload.decode())
  if kind == EVAL:
    return Record(t, kind, packed=payload)
  return Record(t, kind, *_decode(payload))


class Trajectory:
  """A trajectory opened for reading; it reads records on demand."""

  def __init__(
    self, folder: pathlib.Path | str, identity: dict[str, Any] | None = None
  ):
    """Opens the log, to which a run may still be writing.

    Args:
      folder: of the log.
      identity: of the run that the log must belong to; None for any.
    """
    self.path = pathlib.Path(folder) / LOG
    found = log_lib.read(self.path, _FORMAT, identity)
    self.identity: dict[str, Any] = found.identity
    self.problem: str = found.problem  # the part that is ignored, and why
    try:
      self._entries = [(s.t, KINDS[s.kind], s) for s in found.spans]
    except IndexError:
      raise UserError(f"{self.path} is damaged: an unknown record") from None
    self._by_key = {(kind, t): span for t, kind, span in self._entries}

  @property
  def records(self) -> list[tuple[int, str]]:
    """Frame and kind of every record, in order."""
    return [(t, kind) for t, kind, _ in self._entries]

  def __len__(self):
    return len(self._entries)

  def __iter__(self) -> Iterator[Record]:
    with self._open() as file:
      for entry in self._entries:
        yield self._read(file, *entry)

  def find(self, kind: str, t: int) -> Record | None:
    """The record of this kind on frame t; the last one if there are several."""
    span = self._by_key.get((kind, t))
    if span is None:
      return None
    with self._open() as file:
      return self._read(file, t, kind, span)

  def _open(self):
    try:
      return self.path.open("rb")
    except OSError as error:
      raise log_lib.unreadable(self.path, error) from None

  def _read(self, file, t, kind, span):
    try:
      return unpack(t, kind, log_lib.read_payload(file, span))
    except OSError as error:
      raise log_lib.unreadable(self.path, error) from None
    except ValueError as error:
      raise UserError(
        f"{self.path}: the record of frame {t} is damaged ({error})"
      ) from None


class TrajectoryWriter:
  """Writes the trajectory of a run, which may have been interrupted.

  A run that resumes from a checkpoint repeats frames that the teacher has
  labeled. It takes their labels from the log, and must learn the same from them
  again. The claim on the workdir keeps other writers out.
  """

  def __init__(
    self,
    folder: pathlib.Path | str,
    identity: dict[str, Any],
    *,
    start: int = 0,
    is_repeatable: bool = True,
  ):
    """Opens the log, or makes it.

    Args:
      folder: of the log.
      identity: of the run, as JSON; the log of another run is refused.
      start: the frame that the run resumes at.
      is_repeatable: whether the stream repeats the frames from `start` on; if
        not, their records are dropped.
    """
    self.path = pathlib.Path(folder) / LOG
    self._log = log_lib.Writer(self.path, _FORMAT, identity)
    self.problem = self._log.problem  # the part that was dropped, and why
    self._known: dict[tuple[str, int], Record] = {}
    if not is_repeatable:
      self.truncate_from(start)
    elif any(span.t >= start for span in self._log.spans):
      records = Trajectory(folder, identity)
      self._known = {(r.kind, r.t): r for r in records if r.t >= start}

  @property
  def records(self) -> list[tuple[int, str]]:
    """Frame and kind of every record in the log."""
    return [(span.t, KINDS[span.kind]) for span in self._log.spans]

  def known(self, kind: str, t: int) -> Record | None:
    """The record of an earlier request for frame t, even a failed one."""
    return self._known.get((kind, t)) or self._known.get((FAILED, t))

  def learned(
    self,
    t: int,
    labels: Labels,
    info: StepInfo,
    state: State,
    next_key: int,
    *,
    key_t: int | None = None,
    delay: int | None = None,
  ) -> str:
    """Adds a key frame; returns a line if it differs from the earlier record.

    Args:
      t: the frame at which the student learned.
      labels: of the teacher.
      info: of the update, as plain numbers.
      state: of the system after the update.
      next_key: the next key frame.
      key_t: the labeled frame, if it is an older one.
      delay: frames until the update is in effect, if key_t is not given.
    """
    marks = state_arrays.hashes(state_arrays.parameters(state))
    decision = Decision(
      num_updates=info.num_updates,
      num_rolled_back=info.num_rolled_back,
      stride=info.stride,
      next_key=next_key,
      miou_before=info.miou_before,
      miou_after=info.miou_after,
      loss=info.loss,
      grad_norm=info.grad_norm,
      params_hash=marks.digest,
      leaf_hashes=marks.by_leaf,
      delay=delay if key_t is None else t - key_t,
      key_t=key_t,
    )
    return self._add(key_record(t, labels, decision))

  def evaluated(self, t: int, labels: Labels) -> str:
    """Adds labels that only served for evaluation."""
    return self._add(eval_record(t, labels))

  def failed(self, t: int, problem: str) -> str:
    """Adds a failed request."""
    return self._add(failed_record(t, problem))

  def _add(self, record):
    old = self._known.pop((record.kind, record.t), None)
    if old is not None and pack(old) == pack(record):
      return ""
    if old is not None or (
      self._log.spans and self._log.spans[-1].t > record.t
    ):
      self.truncate_from(record.t)
      self._known = {}
    self.append(record)
    if old is None:
      return ""
    return f"frame {record.t} differs from the run before the interruption"

  def append(self, record: Record) -> None:
    """Adds a record of the last record's frame or a later one.

    Raises:
      OSError: for instance if the disk is full; the older records stay whole.
    """
    self._log.append(record.t, pack(record), KINDS.index(record.kind))

  def truncate_from(self, t: int) -> None:
    """Drops the records of frame t and later."""
    self._log.truncate_from(t)

  def close(self) -> None:
    """Closes the log, which is always whole."""
    self._log.close()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()
