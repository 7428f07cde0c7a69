"""A file that only grows: a head, then records that are whole or left out.

The head is a magic word, the format's version and a JSON identity: whose log
it is. A record is the length of its payload, a checksum of both, the payload.
It is written in one piece; a process that is killed leaves a torn last record
at worst, and that is dropped when the log is opened again. What is inside a
payload is the caller's business.
"""

import contextlib
import json
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ojd.errors import UserError

MAX_PAYLOAD_BYTES = 1 << 29
_MAX_IDENTITY_BYTES = 1 << 20
_HEAD = struct.Struct("<4sIII")  # magic, version, bytes, their crc32
_FRAME = struct.Struct("<II")  # bytes, crc32 of that number and of the payload
_LENGTH = struct.Struct("<I")
_MAX_DIFFERENCES = 3  # told of two identities


class Format(NamedTuple):
  """What the logs of one kind have in common."""

  magic: bytes  # four
  version: int
  name: str  # in errors, as "trajectory log"


class Span(NamedTuple):
  """Where the payload of a whole record lies."""

  start: int
  size: int

  @property
  def record_start(self) -> int:
    return self.start - _FRAME.size

  @property
  def end(self) -> int:
    return self.start + self.size


def make_head(about: Format, identity: dict[str, Any]) -> bytes:
  """The first bytes of a log."""
  text = json.dumps(identity, sort_keys=True).encode()
  if len(text) > _MAX_IDENTITY_BYTES:
    raise ValueError(f"an identity of {len(text)} bytes is too long")
  head = _HEAD.pack(about.magic, about.version, len(text), zlib.crc32(text))
  return head + text


def read_head(
  file: BinaryIO,
  about: Format,
  path: pathlib.Path,
  identity: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """The identity of a log, with the file left at its first record.

  Args:
    file: at its start.
    about: of the logs that are known.
    path: of the file, for errors.
    identity: what it must be; None for any.
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
  is_whole = len(text) == length and zlib.crc32(text) == checksum
  found = _parse_identity(text) if is_whole else None
  if found is None:
    raise UserError(f"{path}: the head of this {about.name} is damaged")
  if identity is not None:
    differing = _differences(found, json.loads(json.dumps(identity)))
    if differing:
      more = f"; {len(differing) - _MAX_DIFFERENCES} more"
      words = "; ".join(differing[:_MAX_DIFFERENCES])
      words += more if len(differing) > _MAX_DIFFERENCES else ""
      raise UserError(f"{path} is the {about.name} of another run: {words}")
  return found


def _parse_identity(text):
  try:
    content = json.loads(text)
  except (ValueError, RecursionError):
    return None
  return content if isinstance(content, dict) else None


def _differences(old, new, prefix=""):
  """In what two JSON objects differ, in words."""
  words = []
  for name in sorted(old.keys() | new.keys()):
    before, now = old.get(name, "missing"), new.get(name, "missing")
    if isinstance(before, dict) and isinstance(now, dict):
      words += _differences(before, now, f"{prefix}{name}.")
    elif before != now or (name in old) != (name in new):
      words.append(f"{prefix}{name} ({_short(before)}, now {_short(now)})")
  return words


def _short(value):
  text = " ".join(str(value).split())
  return text if len(text) <= 80 else text[:77] + "..."


def frame(payload: bytes) -> bytes:
  """The bytes of a record."""
  if not 0 < len(payload) <= MAX_PAYLOAD_BYTES:
    raise ValueError(f"a record of {len(payload)} bytes")
  return _FRAME.pack(len(payload), _checksum(payload)) + payload


def _checksum(payload):
  """Not 0 for no bytes: room that was never filled is no record."""
  return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))


def scan(file: BinaryIO) -> Iterator[tuple[Span, bytes]]:
  """Yields whole records from here on, up to the first that is not."""
  position = file.tell()
  size = os.fstat(file.fileno()).st_size
  while len(header := file.read(_FRAME.size)) == _FRAME.size:
    length, checksum = _FRAME.unpack(header)
    span = Span(position + _FRAME.size, length)
    if length > MAX_PAYLOAD_BYTES or span.end > size:
      return
    payload = file.read(length)
    if len(payload) < length or _checksum(payload) != checksum:
      return
    yield span, payload
    position = span.end


def write_all(file: BinaryIO, data: bytes) -> None:
  """Writes to an unbuffered file, which may take a part at a time."""
  rest = memoryview(data)
  while rest:
    rest = rest[file.write(rest) :]


class Appender:
  """Adds records at the end of a file that is open for it, and drops them."""

  def __init__(self, file: BinaryIO, end: int):
    """Cuts the file off at `end`.

    Args:
      file: unbuffered, for appending, its only writer.
      end: of the last whole record.
    """
    self._file, self._end = file, end
    self._is_torn = True
    self._mend()

  def append(self, payload: bytes) -> Span:
    """Adds a record, whole or not at all.

    Raises:
      OSError: of the disk, which may be full; what was there stays whole.
    """
    start = self._end + _FRAME.size
    self.add(frame(payload))
    return Span(start, len(payload))

  def add(self, data: bytes) -> None:
    """Adds bytes as they are, all or none; raises what `append` does."""
    self._mend()
    self._is_torn = True
    try:
      write_all(self._file, data)
    except BaseException:
      with contextlib.suppress(OSError):  # else the next append tries again
        self._mend()
      raise
    self._is_torn = False
    self._end += len(data)

  def _mend(self):
    """Cuts off what a write left that failed."""
    if self._is_torn:
      self._file.truncate(self._end)
      self._is_torn = False

  def truncate(self, end: int) -> None:
    """Drops the records from byte `end` on."""
    self._end, self._is_torn = end, True
    self._mend()

  def sync(self) -> None:
    """Returns once the disk has everything, power failing or not."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Lets the file go."""
    self._file.close()
