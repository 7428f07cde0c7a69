"""A batched teacher: requests that wait together are labelled together."""

import threading

import numpy as np
import pytest

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.fleet.teachers import BatchedLabeler, BatchedTeacher
from ojd.types import Labels, Sample

GROUPS = labels_lib.parse_groups("person", ("background", "person"))


class _Teacher:
  """Says of each frame its first byte; frame 13 is beyond it."""

  class_names = ("background", "person")
  is_free = False

  def __init__(self):
    self.gate, self.sizes, self.begun = threading.Event(), [], threading.Event()

  def label_many(self, samples, groups):
    self.begun.set()
    self.gate.wait()
    self.sizes.append(len(samples))
    return [self._one(sample) for sample in samples]

  def label(self, sample, groups):
    return self.label_many([sample], [groups])[0]

  def _one(self, sample):
    if sample.t == 13:
      raise ValueError("no such luck")
    if sample.t == 14:
      raise UserError("--teacher: it is not of this stream")
    return Labels(sample.frame[..., 0], np.ones((2, 2), np.float32))


def _sample(t):
  return Sample(t, np.full((2, 2, 3), t, np.uint8), None)


def _gathered(batch, times):
  """A teacher, and requests that all wait while its teacher is at another."""
  teacher = _Teacher()
  shared = BatchedTeacher(teacher, batch=batch)
  shared.submit(_sample(0), GROUPS)
  teacher.begun.wait(5)
  futures = [shared.submit(_sample(t), GROUPS) for t in times]
  teacher.gate.set()
  return shared, futures


def test_what_waits_together_is_looked_at_together():
  shared, futures = _gathered(3, range(1, 6))
  answers = [future.result(5) for future in futures]
  assert shared.teacher.sizes == [1, 3, 2]
  assert [a.labels.classes[0, 0] for a in answers] == [1, 2, 3, 4, 5]
  assert [a.sample.t for a in answers] == [1, 2, 3, 4, 5]
  assert all(answer.waited > 0 for answer in answers)
  assert shared.counts()[1:3] == (6, 3)
  shared.close()


def test_one_that_fails_fails_alone():
  shared, (good, bad, wrong, other) = _gathered(8, (12, 13, 14, 15))
  assert good.result(5).labels.classes[0, 0] == 12
  assert other.result(5).labels.classes[0, 0] == 15
  assert bad.result(5).labels is None
  assert bad.result(5).problem == "ValueError: no such luck"
  with pytest.raises(UserError, match="not of this stream"):
    wrong.result(5)
  shared.close()


def test_a_stream_asks_as_of_any_teacher():
  teacher = _Teacher()
  shared = BatchedTeacher(teacher, batch=1)
  asks = BatchedLabeler(shared, GROUPS)
  assert asks.answer(wait=True) is None and not asks.is_free
  asks.ask(_sample(3))
  assert asks.answer(wait=False) is None
  teacher.gate.set()
  assert asks.answer(wait=True).labels.classes[0, 0] == 3
  shared.close()
  with pytest.raises(RuntimeError, match="is closed"):
    asks.ask(_sample(4))
