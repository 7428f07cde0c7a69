"""Clocks are arguments, so no test sleeps."""

import itertools

import pytest

from ojd.run import timing


def test_stages_add_up_by_name_also_when_a_block_raises():
  ticks = iter([0.0, 1.0, 3.0, 10.0, 10.5, 20.0, 24.0, 30.0])
  stages = timing.Stages(lambda: next(ticks))
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
  assert round(timing.paper_speedup(30_000, 471, 471), 2) == 24.85
  # A key frame every eighth, eight updates on each.
  assert round(timing.paper_speedup(30_000, 3_750, 8 * 3_750), 2) == 4.07
  assert timing.paper_speedup(0, 0, 0) == 0.0
  assert timing.paper_speedup(100, 100, 0) == 1.0


def test_peak_memory_never_falls():
  before = timing.peak_memory_mb()
  block = bytearray(64 << 20)
  block[:: 1 << 12] = itertools.repeat(1, len(block) >> 12)
  grown = timing.peak_memory_mb()
  del block
  assert timing.peak_memory_mb() >= grown >= before
  assert grown > 20  # megabytes, not kilobytes or bytes
