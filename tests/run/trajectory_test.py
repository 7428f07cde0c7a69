"""Records of a trajectory: what comes back, and what damage does to one."""

import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd.errors import UserError
from ojd.formats import log as log_lib
from ojd.run import trajectory
from ojd.run.trajectory import Decision, Record
from ojd.types import IGNORE, Labels
from tests.reference.refusals import refused

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


def _write(path, records):
  with trajectory.TrajectoryWriter(path, RUN) as writer:
    for record in records:
      writer.append(record)
  return path / trajectory.LOG


def _bits(record):
  """Something to compare that takes a NaN for what it is."""
  return record.t, record.kind, trajectory.pack(record)


def _there_and_back(record):
  return trajectory.unpack(record.t, record.kind, trajectory.pack(record))


_FLOATS = st.floats(width=64, allow_nan=True)
_COUNTS = st.integers(0, 2**63 - 1)
_HASHES = st.binary(max_size=64).map(bytes.hex)
_MAYBE = st.none() | _COUNTS
_DECISIONS = st.builds(
  Decision,
  *([_COUNTS] * 4 + [_FLOATS] * 4 + [_HASHES]),
  **{"leaf_hashes": _HASHES, "delay": _MAYBE, "key_t": _MAYBE},
)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(_DECISIONS, _COUNTS, st.text())
def test_any_record_comes_back(decision, t, problem):
  record = trajectory.key_record(t, _labels(), decision)
  got = _there_and_back(record)
  assert got._replace(decision=None) == record._replace(decision=None)
  for before, now in zip(decision, got.decision, strict=True):
    assert type(before) is type(now)
    if isinstance(before, float):
      assert struct.pack("<d", before) == struct.pack("<d", now)
    else:
      assert before == now
  record = trajectory.failed_record(t, problem)
  got = _there_and_back(record)
  assert got == record and got.labels() is None and got.problem == problem


def test_long_problem_is_cut_and_one_that_is_no_text_told():
  assert len(trajectory.failed_record(0, "é" * 99_999).problem) == 1 << 15
  assert trajectory.failed_record(0, "a\udcff").problem == "a\\udcff"


def _key(**other):
  return Record(0, "key", _decision(**other), b"x")


@pytest.mark.parametrize(
  "record",
  [
    *(Record(0, "guess", packed=b"x"), Record(0, "key", packed=b"x")),
    *(Record(0, "key", _decision()), Record(0, "eval")),
    *(Record(2**63, "failed"), Record(0.5, "failed")),
    *(_key(stride=-1), _key(key_t=-1), _key(stride=1.5), _key(loss="low")),
    *(_key(params_hash=x) for x in ("xy", "FF", None)),
    _key(leaf_hashes="00" * (1 << 16)),
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


def test_log_damaged_after_it_was_opened_is_told(tmp_path):
  path = _write(tmp_path, _records())
  log = trajectory.Trajectory(tmp_path)
  whole = bytearray(path.read_bytes())
  whole[-5] ^= 1
  path.write_bytes(whole)
  with refused("frame 10 is damaged", str(path)):
    log.find("key", 10)
  path.unlink()
  with refused("cannot be read", str(path)):
    list(log)


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
