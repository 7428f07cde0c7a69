"""The summary of a run that was counted by hand, and its clock."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from ojd import costs
from ojd.run import stats as stats_lib
from ojd.types import Costs

NAMES = ("background", "person", "car", "dog")


def _stats():
  confusion = np.zeros((4, 4), np.int64)
  confusion[0, 0], confusion[1, 1], confusion[0, 1] = 100, 30, 10
  confusion[2, 2], confusion[2, 0] = 20, 60
  return stats_lib.RunStats(
    confusion,
    num_frames=100,
    num_keys=5,
    num_updates=7,
    eval_frames=100,
    finished=True,
  )


def _summarize(stats, seconds, is_teacher_free=False, **more):
  stages = stats_lib.Stages()
  stages.seconds, stages.counts = seconds, dict.fromkeys(seconds, 5)
  return stats_lib.summarize(
    stats,
    stages,
    class_names=NAMES,
    has_truth=True,
    is_teacher_free=is_teacher_free,
    num_interrupted=2,
    **more,
  )


def test_numbers_by_hand():
  seconds = {"predict": 6.0, "teacher": 2.5, "learn": 1.5}
  apart = {"compile": 50.0, "evaluate": 9.0, "pretrain": 90.0}
  summary = _summarize(_stats(), seconds | apart)
  # person 30/40, car 20/80, dog never seen.
  found = summary["miou"]["per_class"]
  assert found == {"person": 0.75, "car": 0.25, "dog": None}
  assert summary["miou"]["mean"] == 0.5
  assert summary["key_frame_fraction"] == 0.05
  # Ten seconds of work; what is done beforehand, or to judge, is apart.
  assert summary["fps"] == pytest.approx(10.0)
  # The teacher takes half a second, so 50 s on every frame.
  assert summary["speedup_measured"] == pytest.approx(5.0)
  expected = 300 * 100 / (7 * 95 + 300 * 5 + 30 * 7)
  assert summary["speedup_paper_model"] == pytest.approx(expected, abs=1e-3)
  assert summary["ms"] == {"teacher": 500.0, "learn": 300.0, "predict": 1200.0}
  assert summary["interrupted"] == 2
  json.dumps(summary, allow_nan=False)
  # Without what a teacher costs, and by the prices of another method.
  costs = Costs(teacher=200.0, predict=3.0, update=11.0, training=50.0)
  given = {"is_teacher_free": True, "costs": costs}
  summary = _summarize(_stats(), {"predict": 1.0}, **given)
  assert summary["speedup_measured"] is None
  expected = 200 * 100 / (3 * 95 + (200 + 50) * 5 + 11 * 7)
  assert summary["speedup_paper_model"] == pytest.approx(expected, abs=1e-3)
  assert summary["paper_ms"] == costs._asdict()


def test_teacher_beside_the_stream_takes_none_of_its_time():
  stats = _stats()
  stats.total_delay = 20
  seconds = {"predict": 8.0, "learn": 2.0, "teacher_async": 2.5}
  summary = _summarize(stats, seconds)
  assert summary["fps"] == pytest.approx(10.0)
  assert summary["speedup_measured"] == pytest.approx(5.0)
  assert summary["mean_delay_frames"] == 4.0
  stats.total_delay = stats.num_keys = 0
  assert _summarize(stats, seconds)["mean_delay_frames"] is None
  assert "mean_delay_frames" not in _summarize(_stats(), seconds)


def test_run_that_never_began_is_still_a_summary():
  empty = stats_lib.RunStats(np.zeros((4, 4), np.int64))
  summary = _summarize(empty, {})
  assert summary["miou"]["mean"] is None
  assert summary["fps"] == 0.0 and not summary["finished"]
  assert summary["interrupted"] == 3
  json.dumps(summary, allow_nan=False)


def test_stages_add_up_by_name_also_when_a_block_raises():
  ticks = iter([0.0, 1.0, 3.0, 10.0, 10.5, 20.0, 24.0, 30.0])
  stages = stats_lib.Stages(lambda: next(ticks))
  with stages("read"):
    pass
  with stages("learn"):
    pass
  with pytest.raises(KeyError), stages("read"):
    raise KeyError
  assert stages.seconds == {"read": 6.0, "learn": 0.5}
  assert stages.mean("read") == 3.0
  assert stages.milliseconds("read") == 4000.0
  assert stages.mean("never") == 0.0
  assert stages.elapsed() == 30.0


def test_paper_speedup_reproduces_the_published_ends():
  # 30,000 frames: strides of 64 from a start at 8 need 471 teacher frames.
  assert round(costs.paper_speedup(30_000, 471, 471), 2) == 24.85
  # A key frame every eighth, eight updates on each.
  assert round(costs.paper_speedup(30_000, 3_750, 8 * 3_750), 2) == 4.07
  assert costs.paper_speedup(0, 0, 0) == 0.0
  assert costs.paper_speedup(100, 100, 0) == 1.0


def test_peak_memory_never_falls():
  before = stats_lib.peak_memory_mb()
  block = bytearray(64 << 20)
  block[:: 1 << 12] = itertools.repeat(1, len(block) >> 12)
  grown = stats_lib.peak_memory_mb()
  del block
  # To the pages that Linux counts in batches; the process may have been larger.
  assert grown >= before - 1
  assert stats_lib.peak_memory_mb() >= grown - 1
  assert grown > 20  # megabytes, not kilobytes or bytes


def test_memory_is_not_that_of_the_process_that_started_this_one():
  held = bytearray(b"x") * (300 << 20)
  code = "from ojd.run import stats; print(stats.peak_memory_mb())"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert len(held) and 0 < float(done.stdout) < stats_lib.peak_memory_mb() - 50
