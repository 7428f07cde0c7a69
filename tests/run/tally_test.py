"""The summary of a run that was counted by hand."""

import json

import numpy as np
import pytest

from ojd.costs import Costs
from ojd.run import tally as tally_lib
from ojd.run import timing

NAMES = ("background", "person", "car", "dog")


def _tally():
  confusion = np.zeros((4, 4), np.int64)
  confusion[0, 0], confusion[1, 1], confusion[0, 1] = 100, 30, 10
  confusion[2, 2], confusion[2, 0] = 20, 60
  return tally_lib.Tally(
    confusion,
    num_frames=100,
    num_keys=5,
    num_updates=7,
    eval_frames=100,
    finished=True,
  )


def _stages(seconds):
  stages = timing.Stages()
  stages.seconds = dict(seconds)
  stages.counts = {name: 5 for name in seconds}
  return stages


def _summarize(tally, seconds, is_teacher_free=False, **more):
  return tally_lib.summarize(
    tally,
    _stages(seconds),
    class_names=NAMES,
    has_truth=True,
    is_teacher_free=is_teacher_free,
    num_interrupted=2,
    **more,
  )


def test_numbers_by_hand():
  seconds = {"compile": 50.0, "evaluate": 9.0, "predict": 6.0, "teacher": 2.5}
  summary = _summarize(_tally(), seconds | {"learn": 1.5})
  # person 30/40, car 20/80, dog never seen.
  assert summary["miou"]["per_class"] == {
    "person": 0.75,
    "car": 0.25,
    "dog": None,
  }
  assert summary["miou"]["mean"] == 0.5
  assert summary["key_frame_fraction"] == 0.05
  # Ten seconds of work; compiling and judging are apart.
  assert summary["fps"] == pytest.approx(10.0)
  # The teacher takes half a second, so 50 s on every frame.
  assert summary["speedup_measured"] == pytest.approx(5.0)
  expected = 300 * 100 / (7 * 95 + 300 * 5 + 30 * 7)
  assert summary["speedup_paper_model"] == pytest.approx(expected, abs=1e-3)
  assert summary["interrupted"] == 2
  json.dumps(summary, allow_nan=False)


def test_teacher_beside_the_stream_takes_none_of_its_time():
  tally = _tally()
  tally.total_delay = 20
  seconds = {"predict": 8.0, "learn": 2.0, "teacher_async": 2.5}
  summary = _summarize(tally, seconds)
  assert summary["fps"] == pytest.approx(10.0)
  assert summary["speedup_measured"] == pytest.approx(5.0)
  assert summary["mean_delay_frames"] == 4.0
  tally.total_delay = tally.num_keys = 0
  assert _summarize(tally, seconds)["mean_delay_frames"] is None
  assert "mean_delay_frames" not in _summarize(_tally(), seconds)


def test_free_teacher_has_no_measured_speedup():
  summary = _summarize(_tally(), {"predict": 1.0}, is_teacher_free=True)
  assert summary["speedup_measured"] is None


def test_prices_are_those_of_the_method():
  costs = Costs(teacher=200.0, predict=3.0, update=11.0, lesson=50.0)
  summary = _summarize(_tally(), {"predict": 1.0}, costs=costs)
  expected = 200 * 100 / (3 * 95 + (200 + 50) * 5 + 11 * 7)
  assert summary["speedup_paper_model"] == pytest.approx(expected, abs=1e-3)
  assert summary["paper_ms"] == {
    "teacher": 200,
    "predict": 3,
    "update": 11,
    "lesson": 50,
  }


def test_what_is_done_beforehand_is_no_work():
  seconds = {"pretrain": 90.0, "predict": 8.0, "teacher": 2.0}
  assert _summarize(_tally(), seconds)["fps"] == pytest.approx(10.0)


def test_run_that_never_began_is_still_a_summary():
  empty = tally_lib.Tally(np.zeros((4, 4), np.int64))
  summary = _summarize(empty, {})
  assert summary["miou"]["mean"] is None
  assert summary["fps"] == 0.0 and not summary["finished"]
  assert summary["interrupted"] == 3
  json.dumps(summary, allow_nan=False)
