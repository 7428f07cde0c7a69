"""What a fleet is simulated from: workdirs, and files made of them."""

import json

import numpy as np
import pytest

from ojd.errors import UserError
from ojd.fleet import trace
from tests import workdirs
from tests.reference.refusals import refused

IDENTITY = {"stream": "synthetic:street?seed=0&num_frames=60&fps=12.5"}


def _rows(**more):
  """Sixty frames, of which each tenth is a key frame."""
  rows = workdirs.rows()
  for i, row in enumerate(row for row in rows if row["is_key"]):
    row |= {"ms_teacher": 50.0 + i, "ms_learn": 400.0 + i} | more
    row["stride"] = 5 * (i + 1)
  return rows


def _run(path, rows=None, **options):
  options = {"identity": IDENTITY} | options
  return workdirs.make(path, _rows() if rows is None else rows, **options)


def test_key_frames_between_the_first_and_the_last(tmp_path):
  found = trace.read(_run(tmp_path / "run"))
  assert found.fps == 12.5 and found.ms_predict == 20.0
  for column, expected in {
    "interval": [10] * 4,
    "stride": [10, 15, 20, 25],
    "num_updates": [1, 2, 3, 4],
    "ms_teacher": [51, 52, 53, 54],
    "ms_learn": [401, 402, 403, 404],
    "miou_before": [0.31, 0.32, 0.33, 0.34],
    "miou_after": [0.61, 0.62, 0.63, 0.64],
    "miou_next": [0.32, 0.33, 0.34, 0.35],
  }.items():
    np.testing.assert_allclose(getattr(found.keys, column), expected)


def test_a_file_in_the_place_of_the_run(tmp_path):
  found = trace.read(_run(tmp_path / "run"))
  trace.write(found, tmp_path / "there" / "street.json")
  again = trace.read(tmp_path / "there" / "street.json")
  assert again._replace(keys=None) == found._replace(keys=None)
  for column, same in zip(found.keys, again.keys, strict=True):
    np.testing.assert_allclose(column, same, atol=1e-4)


def test_the_times_of_other_machines(tmp_path):
  found = trace.read(_run(tmp_path / "run"))
  moved = trace.with_times(found, None, 4.0)
  assert moved.ms_predict == 5.0
  np.testing.assert_allclose(moved.keys.ms_learn, found.keys.ms_learn / 4)
  np.testing.assert_array_equal(moved.keys.ms_teacher, [51, 52, 53, 54])
  np.testing.assert_array_equal(moved.keys.interval, found.keys.interval)
  faster = trace.with_times(found, 9.0, 1.0)
  np.testing.assert_array_equal(faster.keys.ms_teacher, [9.0] * 4)
  np.testing.assert_array_equal(faster.keys.ms_learn, found.keys.ms_learn)


def test_the_rate_of_every_other_frame_is_half(tmp_path):
  window = {"kind": "window", "every": 2, "start_frame": 0, "of": IDENTITY}
  assert trace.read(_run(tmp_path / "a", identity=window)).fps == 6.25
  silent = _run(tmp_path / "b", identity={"kind": "folder"})
  assert trace.read(silent, fps=30.0).fps == 30.0
  with pytest.raises(UserError, match="is no workdir"):
    trace.read(tmp_path)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ({"numbers": {"finished": False}}, "not finished"),
    ({"numbers": {"speedup_measured": None}}, "teacher was free"),
    ({"async_teacher": True}, "without --async_teacher"),
    ({"rows": _rows()[:20]}, "three key frames"),
    ({"rows": workdirs.rows()}, "key frame 0 has no ms_teacher"),
    ({"rows": _rows(miou_after=None)}, "has no miou_after"),
    ({"identity": {"kind": "folder"}}, "give --plan_fps"),
    (None, "there is no such folder"),
  ],
)
def test_what_cannot_be_played_is_refused(tmp_path, arguments, words):
  path = tmp_path / "run"
  if arguments is not None:
    _run(path, **arguments)
  with refused(words, str(path)):
    trace.read(path)


@pytest.mark.parametrize(
  "damage",
  [
    lambda content: None,
    lambda content: content | {"format": 0},
    lambda content: content | {"fps": "fast"},
    lambda content: content | {"keys": content["keys"] | {"interval": [0] * 4}},
    lambda content: content | {"keys": content["keys"] | {"ms_learn": [1.0]}},
    lambda content: content | {"keys": {}},
  ],
)
def test_a_damaged_file_is_refused(tmp_path, damage):
  path = tmp_path / "street.json"
  trace.write(trace.read(_run(tmp_path / "run")), path)
  path.write_text(json.dumps(damage(json.loads(path.read_text()))))
  with pytest.raises(UserError, match="is no trace"):
    trace.read(path)
