"""A fleet's folder, written by hand, beside a simulation of it."""

import pytest

from ojd.errors import UserError
from ojd.fleet import plan_check
from tests import workdirs

IDENTITY = {"stream": "synthetic:street?fps=10"}


def _key(t, wait, teacher, **more):
  row = {"t": t, "is_key": True, "stride": 10, "num_updates": 1}
  row |= {"miou_before": 0.5, "miou_after": 0.6, "ms_learn": 0.0}
  return row | {"ms_wait": wait, "ms_teacher": teacher} | more


def _stream(output, name, keys, num_frames=30, identity=IDENTITY):
  rows = {
    t: {"t": t, "is_key": False, "ms_predict": 1.0} for t in range(num_frames)
  }
  rows |= {row["t"]: row for row in keys}
  for row in rows.values():
    row.setdefault("num_updates", 0)
  path = output / "streams" / name
  workdirs.make(path, list(rows.values()), identity=identity)


def test_a_fleet_that_ran_as_simulated(tmp_path):
  # Both ask each second; the second waits for the first, 200 ms.
  _stream(tmp_path, "a", [_key(t, 0.0, 200.0) for t in (0, 10, 20)])
  _stream(tmp_path, "b", [_key(t, 200.0, 100.0) for t in (0, 10, 20)])
  streams = plan_check.read(tmp_path)
  measured, simulated = plan_check.compare(streams, 1, 1.0)
  assert measured.key_frames == 6
  assert measured.mean_wait == pytest.approx(0.1)
  assert measured.p95 == pytest.approx(0.2)
  assert measured.busy == pytest.approx(0.3)
  assert simulated == pytest.approx(measured)
  lines = plan_check.text(streams, (measured, simulated)).splitlines()
  assert lines[0] == "2 streams of 3.0 s, one teacher"
  assert lines[2].split()[:3] == ["measured", "6", "100.0"]
  assert lines[3].split()[:3] == ["simulated", "6", "100.0"]


def test_answers_that_came_late_and_in_batches(tmp_path):
  # Two share 150 ms, as a frame takes 100 alone and 50 more; the third waits
  # for them. Learned on the third frame.
  late = {"key_t": 0, "delay": 3}
  for name in "ab":
    _stream(tmp_path, name, [_key(3, 0.0, 150.0, **late, batch=2)], 9)
  _stream(tmp_path, "c", [_key(3, 150.0, 100.0, **late, batch=1)], 9)
  streams = plan_check.read(tmp_path, more=0.5)
  measured, simulated = plan_check.compare(streams, batch=2, more=0.5)
  assert measured.busy == pytest.approx(0.25 / 0.9)
  assert simulated == pytest.approx(measured)


def test_a_simulation_that_is_wrong_is_seen(tmp_path):
  _stream(tmp_path, "a", [_key(t, 500.0, 100.0) for t in (0, 10)], 20)
  measured, simulated = plan_check.compare(plan_check.read(tmp_path), 1, 1.0)
  assert measured.mean_wait == pytest.approx(0.5)
  assert simulated.mean_wait == 0.0


@pytest.mark.parametrize(
  ("keys", "identity", "words"),
  [
    (None, IDENTITY, "no fleet ran here"),
    ([_key(0, None, 100.0)], IDENTITY, "key frame 0 has no ms_wait"),
    ([], IDENTITY, "no key frame that was answered"),
    ([_key(0, 0.0, 9.0)], {}, "give --plan_fps"),
  ],
)
def test_what_is_no_fleet_is_refused(tmp_path, keys, identity, words):
  if keys is not None:
    _stream(tmp_path, "a", keys, identity=identity)
  with pytest.raises(UserError, match=words):
    plan_check.read(tmp_path)
  if not identity:
    assert plan_check.read(tmp_path, fps=5.0)[0].seconds == 6.0
