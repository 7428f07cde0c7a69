"""The trajectory of a run: every answer of the teacher, every decision.

With it a run can be told again, or gone on with, without the teacher. It is a
log (see `append_log`) in a folder of its own, one record a question, in the
order of frames.
"""

import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

from ojd.errors import UserError
from ojd.formats import append_log
from ojd.run import trajectory_record
from ojd.run.trajectory_record import Record

LOG = "log.bin"
_FORMAT = append_log.Format(b"OJDT", 2, "trajectory log")


class Writer:
  """Appends to the log of a run, new or begun before.

  A begun one is taken up after its last whole record. Each record reaches the
  file at once, so that it outlives the process; `sync` makes it outlive the
  machine. One writer at a time: the claim on the workdir sees to that.
  """

  def __init__(self, path: pathlib.Path | str, identity: dict[str, Any]):
    """Opens the log, or makes it.

    Args:
      path: the folder of the log.
      identity: of the run, what json takes; another's log is refused.
    """
    folder = pathlib.Path(path)
    self.path = folder / LOG
    self.problem = ""  # what was wrong with the log that was there
    try:
      folder.mkdir(parents=True, exist_ok=True)
      # NOTE: unbuffered, so that nothing is half written in secret.
      file = self.path.open("ab", buffering=0)
      try:
        self._open(file, identity)
      except BaseException:
        file.close()
        raise
    except OSError as error:
      raise UserError(
        f"{self.path} cannot be written: {error.strerror}"
      ) from None

  def _open(self, file, identity):
    head = append_log.make_head(_FORMAT, identity)
    with self.path.open("rb") as old:
      if not self._is_beginning(old, head):
        append_log.read_head(old, _FORMAT, self.path, identity)
        entries, end, self.problem = _scan(old, self.path)
        self._appender = append_log.Appender(file, end)
        self._entries = entries
        return
    # Nobody but this run can have begun it; a kill may have come in between.
    file.truncate(0)
    append_log.write_all(file, head)
    self._appender = append_log.Appender(file, len(head))
    self._entries = []

  def _is_beginning(self, old, head):
    """Whether there is less than a head, and that of this very run."""
    start = old.read(len(head))
    old.seek(0)
    return len(start) < len(head) and head.startswith(start)

  @property
  def records(self) -> list[tuple[int, str]]:
    """Frame and kind of every record that is there."""
    return [(t, kind) for t, kind, _ in self._entries]

  def append(self, record: Record) -> None:
    """Adds a record, of the frame of the last one or later.

    Raises:
      OSError: the disk is full, for instance; what was there stays whole.
    """
    last = self._entries[-1][0] if self._entries else 0
    if record.t < last:
      raise ValueError(f"frame {record.t} comes after frame {last}")
    span = self._appender.append(trajectory_record.pack(record))
    self._entries.append((record.t, record.kind, span))

  def truncate_from(self, t: int) -> None:
    """Drops the records of frame t and later: who went back to t."""
    kept = [entry for entry in self._entries if entry[0] < t]
    if len(kept) < len(self._entries):
      _, _, span = self._entries[len(kept)]
      self._appender.truncate(span.record_start)
      self._entries = kept

  def sync(self) -> None:
    """Returns once the disk has every record."""
    self._appender.sync()

  def close(self) -> None:
    """Lets the file go; it is whole at any time."""
    self._appender.close()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()


class Trajectory:
  """A log opened for reading; records are read when they are asked for."""

  def __init__(self, path, identity, entries, problem):
    self.path = path
    self.identity: dict[str, Any] = identity
    self.problem: str = problem  # what of the log is left out, and why
    self._entries = entries
    self._by_key = {(kind, t): span for t, kind, span in entries}

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
    """The record of this kind on frame t, the last if there are several."""
    span = self._by_key.get((kind, t))
    if span is None:
      return None
    with self._open() as file:
      return self._read(file, t, kind, span)

  def _open(self):
    try:
      return self.path.open("rb")
    except OSError as error:
      raise _unreadable(self.path, error) from None

  def _read(self, file, t, kind, span):
    try:
      file.seek(span.record_start)
      _, payload = next(append_log.scan(file), (None, b""))
      record = trajectory_record.unpack(payload)
      if (record.t, record.kind) != (t, kind):
        raise ValueError("its writer went back and put another there")
      return record
    except OSError as error:
      raise _unreadable(self.path, error) from None
    except (ValueError, struct.error) as error:
      raise UserError(
        f"{self.path}: the record of frame {t} is damaged ({error})"
      ) from None


def read(
  path: pathlib.Path | str, identity: dict[str, Any] | None = None
) -> Trajectory:
  """Opens a log to read, also while it is being written.

  Args:
    path: the folder of the log.
    identity: of the run that it must be of; None for any.
  """
  path = pathlib.Path(path) / LOG
  try:
    with path.open("rb") as file:
      found = append_log.read_head(file, _FORMAT, path, identity)
      entries, _, problem = _scan(file, path)
  except OSError as error:
    raise _unreadable(path, error) from None
  return Trajectory(path, found, entries, problem)


def _scan(file, path):
  """Whole records from here on as (t, kind, span), their end, a problem."""
  entries, last, end = [], 0, file.tell()
  for span, payload in append_log.scan(file):
    try:
      t, kind = trajectory_record.unpack_start(payload)
    except ValueError:
      break
    if t < last:
      break
    entries.append((t, kind, span))
    last, end = t, span.end
  num_left = file.seek(0, os.SEEK_END) - end
  problem = (
    f"{path}: there is no whole record at byte {end}; the {num_left} bytes "
    "from there on are left out"
  )
  return entries, end, problem if num_left else ""


def _unreadable(path, error):
  return UserError(f"{path} cannot be read: {error.strerror}")
