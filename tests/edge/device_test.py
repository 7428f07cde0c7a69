"""Which frames a device sends, and when it tries again to connect."""

import itertools
import random

import pytest

from ojd.edge import client
from ojd.edge import student as student_lib
from ojd.edge.device import Plan
from ojd.errors import UserError
from ojd.network.messages import Schedule


def _wants(there, t, now=0.0):
  return there.wants(t, t / 10, now, patience=30.0)


def test_key_frames_are_a_stride_apart_and_one_at_a_time():
  there = Plan()
  assert not _wants(there, 0)
  there = there.welcomed(Schedule(stride=8))
  assert _wants(there, 5)
  there = there.sent(5, 100.0)
  assert not any(_wants(there, t, 129.0) for t in range(6, 99))
  assert _wants(there, 6, 130.0)  # nobody answers: the next one
  there = there.answered(Schedule(stride=3))
  assert [t for t in range(6, 12) if _wants(there, t)] == [8, 9, 10, 11]
  assert _wants(there, 2)  # the stream began again


def test_frame_without_an_answer_is_made_up_for_on_another_connection():
  there = Plan().welcomed(Schedule(stride=8))
  there = there.sent(5, 0.0)
  there = there.lost()
  assert not _wants(there, 100)
  assert _wants(there.welcomed(Schedule(stride=8)), 6)
  there = there.answered(Schedule(stride=8))
  there = there.lost().welcomed(Schedule(stride=8))
  assert not _wants(there, 12) and _wants(there, 13)


def test_device_is_stale_only_while_an_answer_may_come():
  there = Plan().welcomed(Schedule(stride=8))
  there = there.sent(5, 0.0)
  stale = [t for t in range(5, 16) if there.is_stale(t, 8)]
  assert stale == [13, 14, 15]
  assert not there.lost().is_stale(15, 8)
  assert not there.answered(Schedule(8)).is_stale(15, 8)


def test_samples_by_the_clock():
  there = Plan().welcomed(Schedule(0, 2.0, 10.0))
  taken = []
  for t in range(40):
    if _wants(there, t):
      taken.append(t)
      there = there._replace(sample_time=t / 10)
  assert taken == list(range(0, 40, 5))
  assert _wants(there, 3)  # set back


def test_pauses_double_and_differ():
  taken = list(itertools.islice(client.pauses(random.Random(0)), 12))
  limits = [min(client.LONGEST, client.FIRST * 2**i) for i in range(12)]
  for pause, limit in zip(taken, limits, strict=True):
    assert limit / 2 <= pause <= limit
  others = list(itertools.islice(client.pauses(random.Random(1)), 12))
  assert not set(taken) & set(others)


@pytest.mark.parametrize(
  "text", ["person", "person;auto=car,bus,truck", "a=b;c=d,e"]
)
def test_classes_are_told_alike(text):
  groups = student_lib.groups_of(text)
  assert student_lib.classes_text(groups) == text
  spaced = text.replace(";", " ; ").replace("=", " = ").replace(",", " , ")
  assert student_lib.classes_text(student_lib.groups_of(spaced)) == text
  with pytest.raises(UserError, match="--classes"):
    student_lib.groups_of("a=b;a=c")
