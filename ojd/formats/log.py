"""An append-only file: a head, then records of frames, whole or left out.

The head is a magic word, the format's version and a JSON identity, which says
what the log is about. A record is a header and a payload. The header holds the
frame's index, the record's kind, the payload's length and checksum, and a
checksum of its own. A record is written in one piece: a killed process leaves a
torn last record at worst, which is dropped when the log is opened again. The
caller defines kinds and payloads.
"""

import bisect
import contextlib
import fcntl
import json
import os
import pathlib
import struct
import zlib
from typing import Any, BinaryIO, NamedTuple

from ojd.errors import UserError

MAX_PAYLOAD_BYTES = 1 << 29
_MAX_IDENTITY_BYTES = 1 << 20
_HEAD = struct.Struct("<4sIII")  # magic, version, bytes, their crc32
_RECORD = struct.Struct("<qBII")  # t, kind, bytes of the payload, their crc32
_CHECKSUM = struct.Struct("<I")  # of the record's header
_HEADER_BYTES = _RECORD.size + _CHECKSUM.size
_MAX_DIFFERENCES = 3  # listed of two identities


class Format(NamedTuple):
  """What the logs of one kind have in common."""

  magic: bytes  # four
  version: int
  name: str  # in errors, as "trajectory log"
  # Payloads are checked when they are read, and a damaged header is refused.
  # Otherwise a log is read up to the first damage.
  is_lazy: bool = False


class Span(NamedTuple):
  """Where a record lies."""

  t: int
  kind: int
  start: int
  size: int  # bytes of the payload
  checksum: int  # of the payload

  @property
  def payload_start(self) -> int:
    return self.start + _HEADER_BYTES

  @property
  def end(self) -> int:
    return self.payload_start + self.size


class Contents(NamedTuple):
  """The whole records of a log."""

  identity: dict[str, Any]
  spans: list[Span]
  end: int  # of the last whole record
  problem: str  # which bytes are left out; empty if none


def make_head(about: Format, identity: dict[str, Any]) -> bytes:
  """The first bytes of a log."""
  text = json.dumps(identity, sort_keys=True).encode()
  if len(text) > _MAX_IDENTITY_BYTES:
    raise ValueError(f"an identity of {len(text)} bytes is too long")
  head = _HEAD.pack(about.magic, about.version, len(text), zlib.crc32(text))
  return head + text


def read_head(
  file: BinaryIO, about: Format, path: pathlib.Path
) -> dict[str, Any]:
  """The identity of a log; leaves the file at the first record.

  Args:
    file: at its start.
    about: the format.
    path: of the file, for errors.
  """
  head = file.read(_HEAD.size)
  if len(head) < _HEAD.size or head[:4] != about.magic:
    raise UserError(f"{path} is no {about.name}")
  _, version, length, checksum = _HEAD.unpack(head)
  if version != about.version:
    raise UserError(
      f"{path} is a {about.name} of version {version}, and only "
      f"{about.version} is known; use the program that wrote it"
    )
  text = file.read(length) if length <= _MAX_IDENTITY_BYTES else b""
  found = None
  if len(text) == length and zlib.crc32(text) == checksum:
    with contextlib.suppress(ValueError, RecursionError):
      found = json.loads(text)
  if not isinstance(found, dict):
    raise UserError(f"{path}: the head of this {about.name} is damaged")
  return found


def differences(
  old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> list[str]:
  """In what two JSON objects differ, in words."""
  new = json.loads(json.dumps(new))  # as it would come back from a file
  words = []
  for name in sorted(old.keys() | new.keys()):
    before, now = old.get(name, "missing"), new.get(name, "missing")
    if isinstance(before, dict) and isinstance(now, dict):
      words += differences(before, now, f"{prefix}{name}.")
    elif before != now or (name in old) != (name in new):
      words.append(f"{prefix}{name} ({_short(before)}, now {_short(now)})")
  return words


def _short(value):
  text = " ".join(str(value).split())
  return text if len(text) <= 80 else text[:77] + "..."


def _check_identity(found, wanted, about, path):
  differing = differences(found, wanted)
  if differing:
    more = f"; {len(differing) - _MAX_DIFFERENCES} more"
    words = "; ".join(differing[:_MAX_DIFFERENCES])
    words += more if len(differing) > _MAX_DIFFERENCES else ""
    raise UserError(f"{path} is the {about.name} of another run: {words}")


def record(t: int, kind: int, payload: bytes) -> bytes:
  """The bytes of a record; ValueError if it cannot be one."""
  if len(payload) > MAX_PAYLOAD_BYTES:
    raise ValueError(f"a record of {len(payload)} bytes")
  try:
    header = _RECORD.pack(t, kind, len(payload), zlib.crc32(payload))
  except struct.error as error:
    raise ValueError(f"no record of frame {t}: {error}") from None
  return header + _CHECKSUM.pack(zlib.crc32(header)) + payload


def read(
  path: pathlib.Path, about: Format, identity: dict[str, Any] | None = None
) -> Contents:
  """Reads the index of a log, also while the log is being written.

  Args:
    path: of the file.
    about: the format.
    identity: what the log must be about; None for anything.
  """
  try:
    with path.open("rb") as file:
      found = read_head(file, about, path)
      if identity is not None:
        _check_identity(found, identity, about, path)
      return Contents(found, *_scan(file, about, path))
  except OSError as error:
    raise unreadable(path, error) from None


def unreadable(path: pathlib.Path, error: OSError) -> UserError:
  return UserError(f"{path} cannot be read: {error.strerror}")


def _scan(file, about, path):
  """Spans from here on, their end, and what is left out."""
  spans, position, last = [], file.tell(), 0
  size = os.fstat(file.fileno()).st_size
  while size - position >= _HEADER_BYTES:
    file.seek(position)
    header = file.read(_HEADER_BYTES)
    span = _parse(header, position)
    if span is None or span.t < last:
      # Zeros are room that a failed write was given.
      if about.is_lazy and any(header):
        raise UserError(f"{path} is damaged at byte {position}; record again")
      break
    # The last payload may be torn without the file being shorter.
    is_checked = not about.is_lazy or span.end == size
    if span.end > size or (is_checked and _payload(file, span) is None):
      break
    spans.append(span)
    position, last = span.end, span.t
  problem = ""
  if size > position:
    problem = (
      f"{path}: there is no whole record at byte {position}; the "
      f"{size - position} bytes from there on are left out"
    )
  return spans, position, problem


def _parse(header, start):
  """The span of a record; None where the header is damaged."""
  signed = header[: _RECORD.size]
  (checksum,) = _CHECKSUM.unpack(header[_RECORD.size :])
  t, kind, size, payload_checksum = _RECORD.unpack(signed)
  if zlib.crc32(signed) != checksum or size > MAX_PAYLOAD_BYTES:
    return None
  return Span(t, kind, start, size, payload_checksum)


def _payload(file, span):
  """The payload; None where it is not what its checksum says."""
  file.seek(span.payload_start)
  payload = file.read(span.size)
  return payload if zlib.crc32(payload) == span.checksum else None


def read_payload(file: BinaryIO, span: Span) -> bytes:
  """The payload of a record, checked again.

  Raises:
    ValueError: it is damaged, or another record is in its place.
  """
  file.seek(span.start)
  header = file.read(_HEADER_BYTES)
  if len(header) < _HEADER_BYTES or _parse(header, span.start) != span:
    raise ValueError("another record is in its place")
  payload = _payload(file, span)
  if payload is None:
    raise ValueError("its checksum is wrong")
  return payload


def write_all(file: BinaryIO, data: bytes) -> None:
  """Writes to an unbuffered file, which may take a part at a time."""
  rest = memoryview(data)
  while rest:
    rest = rest[file.write(rest) :]


class Appender:
  """Adds bytes at the end of a file, all or none, and cuts them off again."""

  def __init__(self, file: BinaryIO, end: int):
    """Cuts the file off at `end`.

    Args:
      file: unbuffered, for appending, its only writer.
      end: of what is kept.
    """
    self._file, self.end = file, end
    self._is_torn = True
    self._mend()

  def add(self, data: bytes) -> None:
    """Adds all bytes or none.

    Raises:
      OSError: of the disk, which may be full; what was there stays whole.
    """
    self._mend()
    self._is_torn = True
    try:
      write_all(self._file, data)
    except BaseException:
      with contextlib.suppress(OSError):  # else the next `add` tries again
        self._mend()
      raise
    self._is_torn = False
    self.end += len(data)

  def _mend(self):
    """Cuts off what a failed write left."""
    if self._is_torn:
      self._file.truncate(self.end)
      self._is_torn = False

  def truncate(self, end: int) -> None:
    """Drops what follows byte `end`."""
    self.end, self._is_torn = end, True
    self._mend()

  def close(self) -> None:
    self._file.close()


class Writer:
  """Appends records to a log, new or begun before.

  A begun log is continued after its last whole record. Each record reaches the
  file at once, so that it outlives the process.
  """

  def __init__(
    self, path: pathlib.Path, about: Format, identity: dict[str, Any]
  ):
    """Opens the log, or makes it.

    Args:
      path: of the file.
      about: the format.
      identity: what the log is about, as JSON; another log is refused.
    """
    self._path = path
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      file = path.open("ab", buffering=0)
      try:
        self._open(file, about, identity)
      except BaseException:
        file.close()
        raise
    except OSError as error:
      raise UserError(f"{path} cannot be written: {error.strerror}") from None

  def _open(self, file, about, identity):
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f"{self._path} is being written by another process"
      ) from None
    except OSError:  # a file system without locks
      pass
    head = make_head(about, identity)
    with self._path.open("rb") as old:
      start = old.read(len(head))
    if len(start) < len(head) and head.startswith(start):
      # New, or its writer was killed before the head was whole.
      file.truncate(0)
      write_all(file, head)
      self.spans, end, self.problem = [], len(head), ""
    else:
      _, self.spans, end, self.problem = read(self._path, about, identity)
    self._appender = Appender(file, end)

  @property
  def num_bytes(self) -> int:
    return self._appender.end

  def append(self, t: int, payload: bytes, kind: int = 0) -> None:
    """Adds a record of a frame not before the last, whole or not at all.

    Raises:
      OSError: the disk is full, for instance; what was there stays whole.
    """
    last = self.spans[-1].t if self.spans else 0
    if t < last:
      raise ValueError(f"frame {t} comes after frame {last}")
    data = record(t, kind, payload)
    start = self._appender.end
    span = Span(int(t), kind, start, len(payload), zlib.crc32(payload))
    self._appender.add(data)
    self.spans.append(span)

  def truncate_from(self, t: int) -> None:
    """Drops the records of frame t and later."""
    index = bisect.bisect_left(self.spans, t, key=lambda span: span.t)
    if index < len(self.spans):
      self._appender.truncate(self.spans[index].start)
      del self.spans[index:]

  def close(self) -> None:
    """Closes the file, which is whole at any time."""
    self._appender.close()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()
