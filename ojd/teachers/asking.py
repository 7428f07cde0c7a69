"""Asking a teacher: how often, who waits, and what came of it.

A Labeler takes one question at a time. `SameThread` lets the asker wait,
`OtherThread` and the worker of `ojd.teachers.process` work while it goes on.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.teachers import base
from ojd.types import Labels, Sample

TRIES = 3
# The problem of a question that a teacher of many was not asked: others needed
# it more. No failure.
DEFERRED = "deferred"

_T = TypeVar("_T")


class Answer(NamedTuple):
  """What came of a question."""

  sample: Sample  # that the teacher was asked about
  labels: Labels | None
  problem: str  # why there are no labels
  seconds: float  # of the teacher's own time, on the try that succeeded
  waited: float = 0.0  # seconds until the teacher, who had others, began


class Labeler(Protocol):
  """Labels a frame at a time for a host that may have other things to do."""

  is_free: bool  # its answers cost nothing

  def ask(self, sample: Sample) -> None:
    """Begins a question; the one before must have been answered."""
    ...

  def answer(self, wait: bool) -> Answer | None:
    """The answer to the open question; None where there is none (yet).

    A UserError of the teacher is raised here.
    """
    ...

  def tend(self) -> str:
    """To be called now and then; says what went wrong between questions."""
    ...

  def close(self) -> None:
    """Drops an open question; a second call does nothing."""
    ...


def insist(ask: Callable[[], _T]) -> tuple[_T | None, str]:
  """What `ask` gives; after the last try that raised, None and why.

  A UserError passes: what was asked for will not become possible.
  """
  problem = ""
  for _ in range(TRIES):
    try:
      return ask(), ""
    except UserError:
      raise
    except Exception as error:
      problem = f"{type(error).__name__}: {error}"
  return None, problem


def label(teacher: base.Teacher, sample: Sample, groups: ClassGroups) -> Answer:
  """Asks the teacher here and now, a few times if need be."""

  def ask():
    start = time.perf_counter()
    labels = base.label(teacher, sample, groups)
    return labels, time.perf_counter() - start

  found, problem = insist(ask)
  labels, seconds = found or (None, 0.0)
  return Answer(sample, labels, problem, seconds)


class SameThread:
  """The teacher works when its answer is wanted, and the asker waits."""

  def __init__(self, teacher: base.Teacher, groups: ClassGroups):
    self._teacher, self._groups = teacher, groups
    self.is_free = teacher.is_free
    self._question: Sample | None = None

  def ask(self, sample: Sample) -> None:
    self._question = sample

  def answer(self, wait: bool) -> Answer | None:
    del wait  # nobody else could do the work meanwhile
    sample, self._question = self._question, None
    if sample is None:
      return None
    return label(self._teacher, sample, self._groups)

  def tend(self) -> str:
    return ""

  def close(self) -> None:
    self._question = None


class OtherThread:
  """The teacher works in a thread of its own, the asker goes on."""

  def __init__(self, teacher: base.Teacher, groups: ClassGroups):
    self._teacher, self._groups = teacher, groups
    self.is_free = teacher.is_free
    self._questions: queue.SimpleQueue = queue.SimpleQueue()
    self._answers: queue.SimpleQueue = queue.SimpleQueue()
    self._is_open = False
    self._thread: threading.Thread | None = None

  def ask(self, sample: Sample) -> None:
    if self._thread is None:
      self._thread = threading.Thread(
        target=self._work, name="teacher", daemon=True
      )
      self._thread.start()
    self._is_open = True
    self._questions.put(sample)

  def _work(self):
    while (sample := self._questions.get()) is not None:
      answer: Any
      try:
        answer = label(self._teacher, sample, self._groups)
      except UserError as error:
        answer = error
      self._answers.put(answer)

  def answer(self, wait: bool) -> Answer | None:
    if not self._is_open:
      return None
    try:
      answer = self._answers.get(block=wait)
    except queue.Empty:
      return None
    self._is_open = False
    if isinstance(answer, UserError):
      raise answer
    return answer

  def tend(self) -> str:
    return ""

  def close(self) -> None:
    """Waits for an answer that is under way: a thread cannot be stopped."""
    thread, self._thread, self._is_open = self._thread, None, False
    if thread is not None:
      self._questions.put(None)
      thread.join()
