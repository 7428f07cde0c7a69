"""Which frames a device sends, and how the server counts them."""

import itertools
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from ojd.edge import backoff, beginning, clock, plan
from ojd.edge.plan import Plan
from ojd.errors import UserError
from ojd.network.weights import Schedule


def _wants(there, t, now=0.0):
  return plan.wants(there, t, t / 10, now, patience=30.0)


def test_key_frames_are_a_stride_apart_and_one_at_a_time():
  there = Plan()
  assert not _wants(there, 0)
  there = plan.welcomed(there, Schedule(stride=8))
  assert _wants(there, 5)
  there = plan.sent(there, 5, 100.0)
  assert not any(_wants(there, t, 129.0) for t in range(6, 99))
  assert _wants(there, 6, 130.0)  # nobody answers: the next one
  there = plan.answered(there, Schedule(stride=3))
  assert [t for t in range(6, 12) if _wants(there, t)] == [8, 9, 10, 11]
  assert _wants(there, 2)  # the stream began again


def test_frame_without_an_answer_is_made_up_for_on_another_connection():
  there = plan.welcomed(Plan(), Schedule(stride=8))
  there = plan.sent(there, 5, 0.0)
  there = plan.lost(there)
  assert not _wants(there, 100)
  assert _wants(plan.welcomed(there, Schedule(stride=8)), 6)
  there = plan.answered(there, Schedule(stride=8))
  there = plan.welcomed(plan.lost(there), Schedule(stride=8))
  assert not _wants(there, 12) and _wants(there, 13)


def test_device_is_stale_only_while_an_answer_may_come():
  there = plan.welcomed(Plan(), Schedule(stride=8))
  there = plan.sent(there, 5, 0.0)
  stale = [t for t in range(5, 16) if plan.is_stale(there, t, 8)]
  assert stale == [13, 14, 15]
  assert not plan.is_stale(plan.lost(there), 15, 8)
  assert not plan.is_stale(plan.answered(there, Schedule(8)), 15, 8)


def test_samples_by_the_clock():
  there = plan.welcomed(Plan(), Schedule(0, 2.0, 10.0))
  taken = []
  for t in range(40):
    if _wants(there, t):
      taken.append(t)
      there = there._replace(sample_time=t / 10)
  assert taken == list(range(0, 40, 5))
  assert _wants(there, 3)  # set back


def _ticks(times, fps=10.0):
  there = clock.Clock()
  for time in times:
    tick = clock.tick(there, time, fps)
    there = tick.clock
    yield tick


def test_clock_counts_frames():
  ticks = list(_ticks([0.0, 0.8, 1.61, 1.7]))
  assert [tick.t for tick in ticks] == [0, 8, 16, 17]
  assert [tick.num_skipped for tick in ticks] == [0, 7, 7, 0]
  assert ticks[-1].clock == clock.Clock(18, 0, 0)


@pytest.mark.parametrize("jump", [-5.0, 0.0, 1e9, -1e300, 1e300])
def test_clock_that_jumps_counts_on(jump):
  ticks = list(_ticks([0.0, 2.0, jump, jump + 0.5]))
  assert [tick.t for tick in ticks[:3]] == [0, 20, 21]
  assert ticks[2].num_skipped == 0 and ticks[2].clock.num_jumps == 1
  # From there on by the clock as it is; a double tells no half of 1e300.
  assert ticks[3].t == (26 if abs(jump) < 1e300 else 22)


@hypothesis.given(st.lists(st.floats(-1e12, 1e12), max_size=30))
def test_no_clock_makes_the_server_go_back(times):
  ticks = [t.t for t in _ticks(times)]
  assert all(a < b for a, b in itertools.pairwise(ticks))
  assert all(b - a <= clock.MAX_SKIP + 1 for a, b in itertools.pairwise(ticks))


def test_pauses_double_and_differ():
  taken = list(itertools.islice(backoff.pauses(random.Random(0)), 12))
  limits = [min(backoff.LONGEST, backoff.FIRST * 2**i) for i in range(12)]
  for pause, limit in zip(taken, limits, strict=True):
    assert limit / 2 <= pause <= limit
  others = list(itertools.islice(backoff.pauses(random.Random(1)), 12))
  assert not set(taken) & set(others)


@pytest.mark.parametrize(
  "text", ["person", "person;auto=car,bus,truck", "a=b;c=d,e"]
)
def test_classes_are_told_alike(text):
  groups = beginning.groups_of(text)
  assert beginning.classes_text(groups) == text
  spaced = text.replace(";", " ; ").replace("=", " = ").replace(",", " , ")
  assert beginning.classes_text(beginning.groups_of(spaced)) == text
  with pytest.raises(UserError, match="--classes"):
    beginning.groups_of("a=b;a=c")
