"""The trajectory of a run: what comes back, what damage and kills do to it."""

import errno
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd.errors import UserError
from ojd.formats import log as log_lib
from ojd.run import trajectory
from ojd.run.trajectory import Decision, Record
from ojd.types import IGNORE, Labels

RUN = {"flags": {"seed": 3, "u_max": 8}, "stream": {"kind": "made up"}}


def _labels(seed=0):
  rng = np.random.default_rng(seed)
  classes = rng.choice([0, 1, 2, IGNORE], (6, 9)).astype(np.uint8)
  weights = rng.choice([1, 5], (6, 9)).astype(np.float32)
  return Labels(classes, np.where(classes == IGNORE, np.float32(0), weights))


def _decision(**other):
  about = Decision(3, 1, 8, 16, 0.25, 0.5, 1 / 3, float("nan"), "00ff")
  return about._replace(**other)


def _records():
  late = _decision(delay=2, key_t=8, loss=float("inf"))
  return [
    trajectory.key_record(0, _labels(0), _decision()),
    trajectory.failed_record(8, "it hangs, so does \udcff"),
    trajectory.eval_record(8, _labels(1)),
    trajectory.key_record(10, _labels(2), late),
  ]


def _write(path, records, identity=RUN):
  with trajectory.TrajectoryWriter(path, identity) as writer:
    for record in records:
      writer.append(record)
  return path / trajectory.LOG


def _bits(record):
  """Something to compare that takes a NaN for what it is."""
  return record.t, record.kind, trajectory.pack(record)


def _there_and_back(record):
  return trajectory.unpack(record.t, record.kind, trajectory.pack(record))


def _read(path):
  return [_bits(record) for record in trajectory.Trajectory(path)]


def _one_line(error, path):
  text = str(error.value)
  return str(path) in text and "\n" not in text and len(text) < 400


_FLOATS = st.floats(width=64, allow_nan=True)
_COUNTS = st.integers(0, 2**63 - 1)
_MAYBE = st.none() | _COUNTS
_HASHES = st.binary(max_size=64).map(bytes.hex)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
  st.builds(
    Decision,
    *([_COUNTS] * 4 + [_FLOATS] * 4),
    params_hash=_HASHES,
    leaf_hashes=_HASHES,
    delay=_MAYBE,
    key_t=_MAYBE,
  ),
  _COUNTS,
)
def test_any_decision_comes_back(decision, t):
  record = trajectory.key_record(t, _labels(), decision)
  got = _there_and_back(record)
  assert got._replace(decision=None) == record._replace(decision=None)
  for before, now in zip(decision, got.decision, strict=True):
    assert type(before) is type(now)
    if isinstance(before, float):
      assert struct.pack("<d", before) == struct.pack("<d", now)
    else:
      assert before == now


@hypothesis.settings(deadline=None)
@hypothesis.given(st.text())
def test_any_problem_comes_back(problem):
  record = trajectory.failed_record(4, problem)
  got = _there_and_back(record)
  assert got == record and got.labels() is None
  assert got.problem == problem


def test_long_problem_is_cut_and_one_that_is_no_text_told():
  assert len(trajectory.failed_record(0, "é" * 99_999).problem) == 1 << 15
  assert trajectory.failed_record(0, "a\udcff").problem == "a\\udcff"


@pytest.mark.parametrize(
  "record",
  [
    Record(0, "guess", packed=b"x"),
    Record(0, "key", packed=b"x"),
    Record(0, "key", _decision()),
    Record(0, "eval"),
    Record(2**63, "failed"),
    Record(0.5, "failed"),
    *(
      Record(0, "key", _decision(**other), b"x")
      for other in (
        {"stride": -1},
        {"key_t": -1},
        {"stride": 1.5},
        {"loss": "low"},
        {"params_hash": "xy"},
        {"params_hash": "FF"},
        {"leaf_hashes": "00" * (1 << 16)},
        {"params_hash": None},
      )
    ),
  ],
)
def test_what_is_no_record_is_not_written(tmp_path, record):
  with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
    size = writer.path.stat().st_size
    with pytest.raises(ValueError):
      writer.append(record)
    assert writer.records == [] and writer.path.stat().st_size == size


def test_written_and_read(tmp_path):
  records = _records()
  _write(tmp_path, records)
  log = trajectory.Trajectory(tmp_path, RUN)
  assert log.problem == "" and log.identity == RUN and len(log) == 4
  assert log.records == [(0, "key"), (8, "failed"), (8, "eval"), (10, "key")]
  assert [_bits(x) for x in log] == [_bits(x) for x in records]
  assert log.find("eval", 8) == records[2]
  assert log.find("failed", 8).problem == "it hangs, so does \\udcff"
  assert log.find("key", 8) is None
  got = log.find("key", 10)
  assert (got.decision.delay, got.decision.key_t) == (2, 8)
  for before, now in zip(_labels(2), got.labels(), strict=True):
    np.testing.assert_array_equal(now, before)


def test_it_can_be_read_while_it_is_written(tmp_path):
  with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
    assert len(trajectory.Trajectory(tmp_path)) == 0
    for i, record in enumerate(_records()):
      writer.append(record)
      assert len(trajectory.Trajectory(tmp_path)) == i + 1
    writer.sync()


def test_frames_come_in_order(tmp_path):
  with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
    with pytest.raises(ValueError, match="frame -1"):
      writer.append(trajectory.failed_record(-1, ""))
    writer.append(trajectory.failed_record(4, ""))
    writer.append(trajectory.failed_record(4, ""))
    with pytest.raises(ValueError, match="frame 3 comes after frame 4"):
      writer.append(trajectory.failed_record(3, ""))


def test_frames_out_of_order_in_the_file_are_left_out(tmp_path):
  path = _write(tmp_path, [trajectory.failed_record(4, "a")])
  with path.open("ab") as file:
    file.write(log_lib.record(3, 2, b"b"))
  assert trajectory.Trajectory(tmp_path).records == [(4, "failed")]


@pytest.mark.parametrize(
  ("t", "num_kept"), [(0, 0), (1, 1), (8, 1), (9, 3), (10, 3), (11, 4)]
)
def test_who_goes_back_drops_what_is_later(tmp_path, t, num_kept):
  records = _records()
  path = _write(tmp_path, records)
  whole = path.read_bytes()
  with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
    writer.truncate_from(t)
    assert len(writer.records) == num_kept
    assert _read(tmp_path) == [_bits(x) for x in records[:num_kept]]
    for record in records[num_kept:]:
      writer.append(record)
  assert path.read_bytes() == whole


def test_killed_at_any_byte(tmp_path):
  records = _records()
  path = _write(tmp_path, records)
  whole = path.read_bytes()
  ends = [span.end for _, _, span in trajectory.Trajectory(tmp_path)._entries]
  head = len(log_lib.make_head(trajectory._FORMAT, RUN))
  for cut in range(len(whole) + 1):
    path.write_bytes(whole[:cut])
    num = sum(end <= cut for end in ends)
    is_clean = cut in (0, head, *ends)
    if cut >= head:
      log = trajectory.Trajectory(tmp_path)
      assert [_bits(x) for x in log] == [_bits(x) for x in records[:num]]
      assert (log.problem == "") == is_clean
    else:
      with pytest.raises(UserError) as error:
        trajectory.Trajectory(tmp_path)
      assert _one_line(error, path)
    with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
      assert len(writer.records) == num
      assert (writer.problem == "") == (is_clean or cut < head)
      for record in records[num:]:
        writer.append(record)
    assert path.read_bytes() == whole


def test_begun_log_tells_of_its_torn_tail_once(tmp_path):
  path = _write(tmp_path, _records())
  path.write_bytes(path.read_bytes()[:-3])
  with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
    assert str(path) in writer.problem and "left out" in writer.problem
    assert "\n" not in writer.problem
  with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
    assert writer.problem == "" and len(writer.records) == 3


@pytest.mark.parametrize("num", [3, 8, 4096])
def test_room_that_was_never_filled_is_dropped(tmp_path, num):
  path = _write(tmp_path, _records())
  with path.open("ab") as file:
    file.write(bytes(num))
  log = trajectory.Trajectory(tmp_path)
  assert len(log) == 4 and f"the {num} bytes" in log.problem


def test_damage_in_the_middle_drops_all_from_there(tmp_path):
  path = _write(tmp_path, _records())
  spans = [span for _, _, span in trajectory.Trajectory(tmp_path)._entries]
  whole = bytearray(path.read_bytes())
  whole[spans[1].payload_start + 12] ^= 4
  path.write_bytes(whole)
  log = trajectory.Trajectory(tmp_path)
  assert log.records == [(0, "key")]
  assert f"byte {spans[0].end};" in log.problem
  with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
    assert writer.records == [(0, "key")] and writer.problem == log.problem
  assert path.stat().st_size == spans[0].end


def test_flipped_bytes_never_give_a_wrong_record(tmp_path):
  records = _records()
  path = _write(tmp_path, records)
  whole, expected = path.read_bytes(), [_bits(x) for x in records]
  rng = np.random.default_rng(0)
  for place in range(len(whole)):
    for flip in (1 << rng.integers(0, 8), rng.integers(1, 256)):
      flipped = bytearray(whole)
      flipped[place] ^= int(flip)
      path.write_bytes(flipped)
      try:
        got = _read(tmp_path)
      except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        continue
      assert got == expected[: len(got)] and len(got) < len(expected)


def test_log_damaged_after_it_was_opened_is_told(tmp_path):
  path = _write(tmp_path, _records())
  log = trajectory.Trajectory(tmp_path)
  whole = bytearray(path.read_bytes())
  whole[-5] ^= 1
  path.write_bytes(whole)
  with pytest.raises(UserError, match="frame 10 is damaged") as error:
    log.find("key", 10)
  assert _one_line(error, path)
  path.unlink()
  with pytest.raises(UserError, match="cannot be read") as error:
    list(log)
  assert _one_line(error, path)


def test_record_put_in_the_place_of_another_is_not_taken_for_it(tmp_path):
  record = trajectory.failed_record(3, "a")
  _write(tmp_path, [record])
  log = trajectory.Trajectory(tmp_path)
  with trajectory.TrajectoryWriter(tmp_path, RUN) as writer:
    writer.truncate_from(0)
    writer.append(record._replace(t=2))
  with pytest.raises(UserError, match="frame 3 is damaged"):
    log.find("failed", 3)


def _enemy(tmp_path, *payloads):
  """A file whose checksums are right."""
  path = _write(tmp_path, [])
  with path.open("ab") as file:
    for payload in payloads:
      file.write(log_lib.record(*payload))


def test_payloads_of_an_enemy_end_in_one_line(tmp_path):
  payloads = [trajectory.pack(record) for record in _records()]
  rng = np.random.default_rng(1)
  for _ in range(300):
    number = rng.integers(0, 4)
    changed = bytearray(payloads[number])
    for place in rng.integers(0, min(len(changed), 110), 2):
      changed[place] = rng.integers(0, 256)
    cut = bytes(changed[: rng.integers(0, len(changed) + 1)])
    _enemy(tmp_path, (7, rng.integers(0, 4), cut))
    try:
      for record in trajectory.Trajectory(tmp_path):
        record.labels()
    except UserError as error:
      assert "\n" not in str(error) and "damaged" in str(error)
    (tmp_path / trajectory.LOG).unlink()


def test_torn_labels_behind_a_right_checksum_are_told(tmp_path):
  record = trajectory.eval_record(7, _labels())
  _enemy(tmp_path, (7, 1, trajectory.pack(record)[:-2]))
  (got,) = trajectory.Trajectory(tmp_path)
  with pytest.raises(UserError, match="labels of frame 7 are damaged"):
    got.labels()


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
def test_log_of_another_run_is_refused(tmp_path, identity, words):
  path = _write(tmp_path, _records())
  before = path.read_bytes()
  for open_log in (trajectory.TrajectoryWriter, trajectory.Trajectory):
    with pytest.raises(UserError, match="another run") as error:
      open_log(tmp_path, identity)
    assert _one_line(error, path) and words in str(error.value)
  assert path.read_bytes() == before


def test_identity_is_compared_as_json_has_it(tmp_path):
  _write(tmp_path, _records(), {"size": (2, 3), "b": 1, "a": 2})
  trajectory.Trajectory(tmp_path, {"a": 2, "b": 1, "size": [2, 3]})


def _head(version=3, text=b"{}", length=None, checksum=None):
  length = len(text) if length is None else length
  checksum = zlib.crc32(text) if checksum is None else checksum
  return struct.pack("<4sIII", b"OJDT", version, length, checksum) + text


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"dear diary", "is no trajectory log"),
    (bytes(5000), "is no trajectory log"),
    (_head()[:15], "is no trajectory log"),
    (_head(version=2), "version 2, and only 3 is known"),
    (_head(checksum=1), "head of this trajectory log is damaged"),
    (_head(length=3), "damaged"),
    (_head(length=1 << 31), "damaged"),
    (_head(text=b"[]"), "damaged"),
    (_head(text=b"\xff"), "damaged"),
    (_head(text=b"{" * 9), "damaged"),
    (_head(text=b"[" * 200_000), "damaged"),
    (
      _head(text=b'{"a":' * 600 + b"1" + b"}" * 600),
      "another run: a (",
    ),
  ],
)
def test_what_is_no_log_is_refused_and_left_alone(tmp_path, content, words):
  path = tmp_path / trajectory.LOG
  path.write_bytes(content)
  for open_log in (trajectory.TrajectoryWriter, trajectory.Trajectory):
    with pytest.raises(UserError) as error:
      open_log(tmp_path, RUN)
    assert words in str(error.value) and _one_line(error, path)
  assert path.read_bytes() == content


def test_files_in_the_way_are_told(tmp_path):
  (tmp_path / "file").write_text("")
  (tmp_path / "folder" / trajectory.LOG).mkdir(parents=True)
  for name in ("file", "folder"):
    for open_log in (trajectory.TrajectoryWriter, trajectory.Trajectory):
      with pytest.raises(UserError, match="cannot be") as error:
        open_log(tmp_path / name, RUN)
      assert _one_line(error, tmp_path / name)
  with pytest.raises(UserError, match="No such file"):
    trajectory.Trajectory(tmp_path / "nowhere")


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


@pytest.mark.parametrize("can_truncate", [True, False])
@pytest.mark.parametrize("room", [0, 1, 7, 8, 60, 100])
def test_full_disk_leaves_a_whole_log(tmp_path, room, can_truncate):
  first, _, _, other = _records()
  writer = trajectory.TrajectoryWriter(tmp_path, RUN)
  writer.append(first)
  size = writer.path.stat().st_size
  disk = _Disk(writer._log._appender._file, room, can_truncate)
  writer._log._appender._file = disk
  for _ in range(2):
    with pytest.raises(OSError) as error:
      writer.append(other)
    assert error.value.errno in (errno.ENOSPC, errno.EIO)
    if can_truncate:
      assert writer.path.stat().st_size == size
    assert writer.records == [(0, "key")]
    assert _read(tmp_path) == [_bits(first)]
  disk.room, disk.can_truncate = 10**6, True
  writer.append(other)
  writer.close()
  assert _read(tmp_path) == [_bits(first), _bits(other)]
  assert trajectory.Trajectory(tmp_path).problem == ""


def test_limit_of_the_system_in_the_midst_of_a_record(tmp_path):
  """The kernel takes the first bytes of a record and refuses the rest."""
  first, _, _, other = _records()
  writer = trajectory.TrajectoryWriter(tmp_path, RUN)
  writer.append(first)
  size = writer.path.stat().st_size
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
  try:
    with pytest.raises(OSError):
      writer.append(other)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert writer.path.stat().st_size == size
  writer.append(other)
  writer.close()
  assert _read(tmp_path) == [_bits(first), _bits(other)]


def test_head_that_does_not_fit_is_told_and_made_up_for(tmp_path, monkeypatch):
  def write_some(file, data):
    file.write(data[:9])
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(log_lib, "write_all", write_some)
  with pytest.raises(UserError, match="No space left") as error:
    trajectory.TrajectoryWriter(tmp_path, RUN)
  assert _one_line(error, tmp_path)
  monkeypatch.undo()
  _write(tmp_path, _records())
  assert len(trajectory.Trajectory(tmp_path, RUN)) == 4


_ENDLESS = """
import sys
import numpy as np
from ojd.run import trajectory
from ojd.types import Labels

labels = Labels(np.zeros((40, 40), np.uint8), np.ones((40, 40), np.float32))
record = trajectory.eval_record(0, labels)
with trajectory.TrajectoryWriter(sys.argv[1], {"run": 1}) as writer:
  t = len(writer.records)
  while True:
    writer.append(record._replace(t=t))
    t += 1
    print(t, flush=True)
"""


def test_process_killed_while_it_writes(tmp_path):
  num_told = 0
  for _ in range(2):
    command = [sys.executable, "-c", _ENDLESS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
      for _ in range(50):
        child.stdout.readline()
      time.sleep(0.01)
      child.send_signal(signal.SIGKILL)
      lines = child.stdout.read().split("\n")
    told = [int(line) for line in lines[:-1]] or [num_told]
    frames = [t for t, _ in trajectory.Trajectory(tmp_path, {"run": 1}).records]
    assert frames == list(range(len(frames)))
    # At most one that was written could not be told of any more.
    assert 0 <= len(frames) - told[-1] <= 1 and len(frames) > num_told
    num_told = len(frames)
