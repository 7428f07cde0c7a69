"""Append-only logs: what comes back, what damage, kills and full disks do.

What is appended is in the file at once, so that a killed process leaves the
file as one that is cut off somewhere.
"""

import errno
import struct
import zlib

import numpy as np
import pytest

from ojd.errors import UserError
from ojd.formats import log as log_lib
from tests.reference.refusals import refused

DIARY = log_lib.Format(b"DIAR", 3, "diary")
RUN = {"flags": {"seed": 3, "u_max": 8}, "stream": {"kind": "made up"}}
# Frame, payload and kind.
RECORDS = [(0, bytes(range(60)), 0), (8, b"it hangs", 2), (8, b"", 1)]
RECORDS += [(10, b"x" * 90, 0)]


@pytest.fixture
def path(tmp_path):
  """A log with RECORDS, read while it is written."""
  path = tmp_path / "new" / "log.bin"
  with _writer(path) as writer:
    for i, record in enumerate(RECORDS):
      assert len(_read(path).spans) == i
      writer.append(*record)
  return path


def _writer(path, identity=RUN):
  return log_lib.Writer(path, DIARY, identity)


def _read(path, identity=None):
  return log_lib.read(path, DIARY, identity)


def _records(path):
  """All records, read one by one."""
  with path.open("rb") as file:
    return [
      (span.t, log_lib.read_payload(file, span), span.kind)
      for span in _read(path).spans
    ]


def _check_refusal(path, *words, identity=RUN):
  """Whoever opens the file is told why not, and it stays as it is."""
  before = path.read_bytes() if path.is_file() else None
  for open_log in (_writer, _read):
    with refused(str(path), *words) as error:
      open_log(path, identity)
    assert len(str(error.value)) < 400
  assert before is None or path.read_bytes() == before


def test_written_and_read_in_order(path):
  found = _read(path, RUN)
  assert (found.identity, found.problem) == (RUN, "")
  assert _records(path) == RECORDS
  with _writer(path) as writer:
    assert writer.spans == found.spans
    assert writer.num_bytes == path.stat().st_size == found.end
    with refused("another process"):
      _writer(path)
    for t, words in (
      *((-1, "frame -1"), (2**63, "no record"), (10.5, "no record")),
      (9, "frame 9 comes after frame 10"),
    ):
      with pytest.raises(ValueError, match=words):
        writer.append(t, b"")
  with path.open("ab") as file:
    file.write(log_lib.record(9, 0, b""))
  assert _records(path) == RECORDS


@pytest.mark.parametrize(
  ("t", "num_kept"), [(0, 0), (1, 1), (8, 1), (9, 3), (10, 3), (11, 4)]
)
def test_records_from_a_frame_on_are_dropped(path, t, num_kept):
  whole = path.read_bytes()
  with _writer(path) as writer:
    writer.truncate_from(t)
    assert _records(path) == RECORDS[:num_kept]
    for record in RECORDS[num_kept:]:
      writer.append(*record)
  assert path.read_bytes() == whole


def test_killed_at_any_byte(path):
  whole = path.read_bytes()
  ends = [span.end for span in _read(path).spans]
  head = len(log_lib.make_head(DIARY, RUN))
  for cut in range(len(whole) + 1):
    path.write_bytes(whole[:cut])
    num = sum(end <= cut for end in ends)
    problem = ""
    if cut >= head:
      assert _records(path) == RECORDS[:num]
      problem = _read(path).problem
      assert (problem == "") == (cut in (head, *ends))
      assert not problem or (str(path) in problem and "left out" in problem)
    else:
      with refused(str(path)):
        _read(path)
    with _writer(path) as writer:
      assert len(writer.spans) == num and writer.problem == problem
      for record in RECORDS[num:]:
        writer.append(*record)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("num", [3, 8, 4096])
def test_room_that_was_never_filled_is_dropped(path, num):
  with path.open("ab") as file:
    file.write(bytes(num))
  for is_lazy in (False, True):
    found = log_lib.read(path, DIARY._replace(is_lazy=is_lazy))
    assert len(found.spans) == 4 and f"the {num} bytes" in found.problem


def test_damage_in_the_middle_drops_all_from_there(path):
  spans = _read(path).spans
  whole = bytearray(path.read_bytes())
  whole[spans[1].payload_start] ^= 4
  path.write_bytes(whole)
  problem = _read(path).problem
  assert _records(path) == RECORDS[:1] and f"byte {spans[0].end};" in problem
  with _writer(path) as writer:
    assert writer.problem == problem
  assert path.stat().st_size == spans[0].end


def test_flipped_bytes_never_give_a_wrong_record(path):
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  for place in range(len(whole)):
    for flip in (1 << rng.integers(0, 8), rng.integers(1, 256)):
      flipped = bytearray(whole)
      flipped[place] ^= int(flip)
      path.write_bytes(flipped)
      try:
        got = _records(path)
      except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
      else:
        assert got == RECORDS[: len(got)] and len(got) < len(RECORDS)


def test_another_record_in_the_place_of_one_is_noticed(path):
  last = _read(path).spans[-1]
  with _writer(path) as writer:
    writer.truncate_from(10)
    writer.append(11, RECORDS[-1][1])
  with path.open("rb") as file, pytest.raises(ValueError, match="another"):
    log_lib.read_payload(file, last)


@pytest.mark.parametrize(
  ("identity", "words"),
  [
    ({**RUN, "flags": {"seed": 4, "u_max": 8}}, "flags.seed (3, now 4)"),
    ({**RUN, "flags": {"u_max": 8}}, "flags.seed (3, now missing)"),
    ({**RUN, "extra": None}, "extra (missing, now None)"),
    ({**RUN, "stream": "a\nb" * 99}, "stream ({'kind': 'made up'}, now a b"),
    ({str(i): i for i in range(9)}, "; 8 more"),
  ],
)
def test_log_of_another_run_is_refused(path, identity, words):
  _check_refusal(path, "another run", words, identity=identity)
  _writer(path.with_name("b"), {"size": (2, 3), "b": 1, "a": 2}).close()
  # It is compared as JSON has it.
  _read(path.with_name("b"), {"a": 2, "b": 1, "size": [2, 3]})


def _head(version=3, text=b"{}", length=None, checksum=None):
  length = len(text) if length is None else length
  checksum = zlib.crc32(text) if checksum is None else checksum
  return struct.pack("<4sIII", b"DIAR", version, length, checksum) + text


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"dear diary", "is no diary"),
    (bytes(5000), "is no diary"),
    (_head()[:15], "is no diary"),
    (_head(version=2), "version 2, and only 3 is known"),
    (_head(checksum=1), "head of this diary is damaged"),
    (_head(length=3), "damaged"),
    (_head(length=1 << 31), "damaged"),
    (_head(text=b"[]"), "damaged"),
    (_head(text=b"\xff"), "damaged"),
    (_head(text=b"{" * 9), "damaged"),
    (_head(text=b"[" * 200_000), "damaged"),
    (_head(text=b'{"a":' * 600 + b"1" + b"}" * 600), "another run: a ("),
  ],
)
def test_what_is_no_log_is_refused_and_left_alone(tmp_path, content, words):
  path = tmp_path / "log.bin"
  path.write_bytes(content)
  _check_refusal(path, words)
  for in_the_way in (path / "log.bin", tmp_path):
    _check_refusal(in_the_way, "cannot be")
  with refused("No such file"):
    _read(tmp_path / "nowhere")


class _Disk:
  """A file on a disk with room for `room` bytes, which may then break."""

  def __init__(self, file, room, can_truncate):
    self._file, self.room, self.can_truncate = file, room, can_truncate

  def write(self, data):
    num = min(len(data), self.room, 40)
    if not num:
      raise OSError(errno.ENOSPC, "No space left on device")
    self.room -= num
    return self._file.write(data[:num])

  def truncate(self, end):
    if not self.can_truncate:
      raise OSError(errno.EIO, "Input/output error")
    return self._file.truncate(end)

  def close(self):
    self._file.close()


@pytest.fixture
def begun(tmp_path):
  """A log of one record, its writer and its size."""
  path = tmp_path / "log.bin"
  with _writer(path) as writer:
    writer.append(*RECORDS[0])
    yield path, writer, path.stat().st_size
    writer.append(*RECORDS[-1])
  assert _records(path) == [RECORDS[0], RECORDS[-1]]
  assert _read(path).problem == ""


@pytest.mark.parametrize("can_truncate", [True, False])
@pytest.mark.parametrize("room", [0, 1, 7, 8, 60, 100])
def test_full_disk_leaves_a_whole_log(begun, room, can_truncate):
  path, writer, size = begun
  disk = _Disk(writer._appender._file, room, can_truncate)
  writer._appender._file = disk
  for _ in range(2):
    with pytest.raises(OSError) as error:
      writer.append(*RECORDS[-1])
    assert error.value.errno in (errno.ENOSPC, errno.EIO)
    if can_truncate:
      assert path.stat().st_size == size
    assert len(writer.spans) == 1 and _records(path) == RECORDS[:1]
  disk.room, disk.can_truncate = 10**6, True


def test_head_that_does_not_fit_is_told_and_made_up_for(tmp_path, monkeypatch):
  def write_some(file, data):
    file.write(data[:9])
    raise OSError(errno.ENOSPC, "No space left on device")

  path = tmp_path / "log.bin"
  with monkeypatch.context() as patch:
    patch.setattr(log_lib, "write_all", write_some)
    with refused(str(path), "No space left"):
      _writer(path)
  _writer(path).close()
  assert _read(path, RUN).spans == []
