"""Teacher outputs on disk: written once in order, read at random.

A recording is a folder. `recording.json` says whose answers they are and of
which stream (Description); `records.bin` holds a record a frame, each a header
and a zlib stream. Every header carries two checksums, its own and the
payload's, so that a file cut off in mid-record loses that record and no other.
What is inside a payload is the business of `record_codec`.
"""

import fcntl
import json
import os
import pathlib
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from ojd.errors import UserError
from ojd.teachers import record_codec
from ojd.types import Instances

DESCRIPTION, RECORDS = "recording.json", "records.bin"
_FORMAT, _VERSION = "ojd-recording", 1
_MAX_DESCRIPTION_BYTES = 1 << 20
_MAX_PAYLOAD_BYTES = 1 << 28
_MAX_FRAMES = 2**31
_MAX_NAMES = 2**16
_MAX_SIDE = 2**13

_MAGIC = b"OJDR"
_HEADER = struct.Struct("<4sIIII")  # magic, t, bytes, their crc32, header's own
_SIGNED = struct.Struct("<4sIII")  # what the header's checksum covers


class Description(NamedTuple):
  """Whose answers a recording holds, and to what."""

  kind: str  # "instances" or "class_map"
  teacher: str  # as --teacher named it
  class_names: tuple[str, ...]  # of the teacher
  stream: dict[str, Any]  # identity of the frames it saw
  height: int  # of those frames
  width: int
  num_frames: int | None  # of the stream; None where the end is not known
  every: int = 1  # recorded is every n-th frame


class MissingFrameError(LookupError):
  """The recording has no answer for a frame; others it may have."""


class _Entry(NamedTuple):
  """Where the payload of a record lies."""

  start: int
  size: int
  checksum: int


def kind_of(answer: Instances | np.ndarray) -> str:
  """The kind of recording that an answer belongs into."""
  return "instances" if isinstance(answer, Instances) else "class_map"


class Recording:
  """A recording opened for reading; a frame is checked when it is read."""

  def __init__(self, path: pathlib.Path | str):
    self.path = pathlib.Path(path).expanduser()
    self.description = _read_description(self.path / DESCRIPTION)
    self._entries, _ = _scan(self.path / RECORDS)

  @property
  def frames(self) -> list[int]:
    """The frames that it has, ascending."""
    return list(self._entries)

  def __len__(self):
    return len(self._entries)

  def read(self, t: int) -> Instances | np.ndarray:
    """The answer for frame t."""
    entry = self._entries.get(t)
    if entry is None:
      raise MissingFrameError(f"{self.path} has no record of frame {t}")
    path, about = self.path / RECORDS, self.description
    try:
      with path.open("rb") as file:
        file.seek(entry.start)
        payload = file.read(entry.size)
      if zlib.crc32(payload) != entry.checksum:
        raise ValueError("its checksum is wrong")
      return record_codec.decode(
        about.kind, payload, about.height, about.width, len(about.class_names)
      )
    except OSError as error:
      raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, struct.error, zlib.error) as error:
      raise UserError(
        f"{path}: the record of frame {t} is damaged ({error}); record again"
      ) from None


class Writer:
  """Appends records to a recording, new or begun before.

  A begun one is taken up after its last whole record, if it is of the same
  description; it is locked against a second writer.
  """

  def __init__(self, path: pathlib.Path | str, description: Description):
    self.path = pathlib.Path(path).expanduser()
    self.description = description
    try:
      is_begun = is_recording(self.path)
      if not is_begun and self.path.exists() and any(self.path.iterdir()):
        raise UserError(
          f"{self.path} holds files that are not of a recording; "
          "name a new folder"
        )
      self.path.mkdir(parents=True, exist_ok=True)
      self._file = (self.path / RECORDS).open("ab")
    except OSError as error:
      raise UserError(
        f"{self.path} cannot be written: {error.strerror}"
      ) from None
    try:
      self._lock()
      self._claim()
      entries, end = _scan(self.path / RECORDS)
      self._file.truncate(end)
    except BaseException:
      self._file.close()
      raise
    self.last = max(entries, default=-1)  # frame recorded last
    self.num_records = len(entries)
    self.num_bytes = end

  def _lock(self):
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f"{self.path} is being written by another process"
      ) from None

  def _claim(self):
    """Writes the description, or compares it with the one that is there."""
    path = self.path / DESCRIPTION
    if is_recording(self.path):
      differing = differences(_read_description(path), self.description)
      if differing:
        raise UserError(
          f"{self.path} holds a recording with other {'; '.join(differing)}; "
          "name a new folder"
        )
      return
    about = {"format": _FORMAT, "version": _VERSION}
    about |= self.description._asdict()
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(about, indent=2) + "\n")
    os.replace(beside, path)

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
      payload = record_codec.encode(
        about.kind, answer, about.height, about.width, len(about.class_names)
      )
    except ValueError as error:
      raise UserError(
        f"the teacher's answer to frame {t} cannot be recorded: {error}"
      ) from None
    signed = _SIGNED.pack(_MAGIC, t, len(payload), zlib.crc32(payload))
    record = signed + struct.pack("<I", zlib.crc32(signed)) + payload
    # In one piece: a record that is not whole is dropped when it is read.
    self._file.write(record)
    self._file.flush()
    self.last = t
    self.num_records += 1
    self.num_bytes += len(record)

  def close(self) -> None:
    """Lets the file go; the recording is whole at any time."""
    self._file.close()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()


def is_recording(path: pathlib.Path | str) -> bool:
  """Whether a folder holds a recording, whole or just begun."""
  return (pathlib.Path(path).expanduser() / DESCRIPTION).exists()


def differences(old: Description, new: Description) -> list[str]:
  """In what two recordings differ, in words."""
  words = []
  for name in Description._fields:
    before, now = getattr(old, name), getattr(new, name)
    if name == "stream":
      words += identity_differences(before, now)
    elif before != now:
      words.append(f"{name} ({_short(before)}, now {_short(now)})")
  return words


def identity_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """In what two streams differ, in words."""
  new = json.loads(json.dumps(new))  # as it would come back from a file
  return [
    f"the stream's {name} ({_short(old.get(name))}, "
    f"now {_short(new.get(name))})"
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name)
  ]


def _short(value):
  text = str(value)
  return text if len(text) <= 120 else text[:117] + "..."


def _read_description(path):
  try:
    with path.open("rb") as file:
      text = file.read(_MAX_DESCRIPTION_BYTES + 1)
    if len(text) > _MAX_DESCRIPTION_BYTES:
      raise ValueError("it is too long")
    return _parse_description(json.loads(text))
  except OSError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror}); a recording is a folder "
      "made by experiments.record"
    ) from None
  except (ValueError, RecursionError) as error:
    words = " ".join(str(error).split())
    raise UserError(f"{path} does not describe a recording ({words})") from None


def _parse_description(content):
  """A Description, or ValueError."""
  if not isinstance(content, dict) or content.get("format") != _FORMAT:
    raise ValueError("it is of another format")
  if content.get("version") != _VERSION:
    raise ValueError(f"it is of version {content.get('version')!r}")
  missing = [n for n in Description._fields if n not in content]
  if missing:
    raise ValueError(f"{missing[0]} is missing")
  about = Description(*(content[name] for name in Description._fields))
  names = about.class_names
  is_right = {
    "kind": about.kind in ("instances", "class_map"),
    "teacher": isinstance(about.teacher, str),
    "class_names": isinstance(names, list)
    and 0 < len(names) <= _MAX_NAMES
    and all(isinstance(name, str) for name in names),
    "stream": isinstance(about.stream, dict),
    "height": _is_count(about.height, _MAX_SIDE),
    "width": _is_count(about.width, _MAX_SIDE),
    "num_frames": about.num_frames is None
    or _is_count(about.num_frames, _MAX_FRAMES),
    "every": _is_count(about.every, _MAX_FRAMES),
  }
  for name, is_so in is_right.items():
    if not is_so:
      raise ValueError(f"{name} is {_short(getattr(about, name))}")
  return about._replace(class_names=tuple(names))


def _is_count(value, most):
  return type(value) is int and 1 <= value <= most


def _scan(path):
  """Frame -> entry of every whole record, and where the last of them ends."""
  entries, end, last = {}, 0, -1
  try:
    with path.open("rb") as file:
      size = os.fstat(file.fileno()).st_size
      while header := _read_header(path, file, end, size):
        t, entry = header
        if t <= last:
          raise UserError(
            f"{path} is damaged: frame {t} comes after frame {last}; "
            "record again"
          )
        # The last payload may have been torn without the file being shorter.
        after = entry.start + entry.size
        if after == size and not _is_whole(file, entry):
          break
        entries[t], end, last = entry, after, t
  except FileNotFoundError:
    return {}, 0
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from None
  return entries, end


def _read_header(path, file, start, size):
  """(t, entry) of the record at `start`; None at the end or a torn tail."""
  if size - start < _HEADER.size:
    return None
  file.seek(start)
  header = file.read(_HEADER.size)
  magic, t, length, checksum, own = _HEADER.unpack(header)
  if not any(header):  # room that was given to a write that never came
    return None
  is_own = own == zlib.crc32(header[: _SIGNED.size])
  if magic != _MAGIC or not is_own or length > _MAX_PAYLOAD_BYTES:
    raise UserError(f"{path} is damaged at byte {start}; record again")
  if start + _HEADER.size + length > size:
    return None
  return t, _Entry(start + _HEADER.size, length, checksum)


def _is_whole(file, entry):
  file.seek(entry.start)
  return zlib.crc32(file.read(entry.size)) == entry.checksum
