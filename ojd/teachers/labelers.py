"""Labelers: how the host gets labels from a teacher, a frame at a time.

`InStep` makes the host wait. `InThread`, and `InProcess` of
`ojd.teachers.process`, work while the host goes on. `Cached` asks only about
frames whose labels are not known.
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
# The problem of a request that a shared teacher passed over, since others were
# more urgent. It is no failure.
DEFERRED = "deferred"

_T = TypeVar("_T")


class Answer(NamedTuple):
  """The answer to a request."""

  sample: Sample  # of the request
  labels: Labels | None
  problem: str  # why there are no labels
  seconds: float  # of the teacher's own time, in the try that succeeded
  waited: float = 0.0  # seconds until a shared teacher began


class Labeler(Protocol):
  """Labels a frame at a time for a host that may have other things to do."""

  is_free: bool  # its answers cost nothing

  def ask(self, sample: Sample) -> None:
    """Starts a request; the one before must have been answered."""
    ...

  def answer(self, wait: bool) -> Answer | None:
    """The answer to the open request; None where there is none (yet).

    A UserError of the teacher is raised here.
    """
    ...

  def poll(self) -> str:
    """Does upkeep; the host calls it every frame. Returns a problem, or ""."""
    ...

  def close(self) -> None:
    """Drops an open request; a second call does nothing."""
    ...


def retry(ask: Callable[[], _T]) -> tuple[_T | None, str]:
  """Calls `ask` at most TRIES times; returns its result, or None and why.

  A UserError passes: another try would not help.
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
  """Labels a frame at once, with retries."""

  def ask():
    start = time.perf_counter()
    labels = base.label(teacher, sample, groups)
    return labels, time.perf_counter() - start

  found, problem = retry(ask)
  labels, seconds = found or (None, 0.0)
  return Answer(sample, labels, problem, seconds)


class InStep:
  """The teacher works when the answer is read, and the host waits."""

  def __init__(self, teacher: base.Teacher, groups: ClassGroups):
    self._teacher, self._groups = teacher, groups
    self.is_free = teacher.is_free
    self._request: Sample | None = None

  def ask(self, sample: Sample) -> None:
    self._request = sample

  def answer(self, wait: bool) -> Answer | None:
    del wait  # the work is done here
    sample, self._request = self._request, None
    if sample is None:
      return None
    return label(self._teacher, sample, self._groups)

  def poll(self) -> str:
    return ""

  def close(self) -> None:
    self._request = None


class InThread:
  """The teacher works in a thread of its own."""

  def __init__(self, teacher: base.Teacher, groups: ClassGroups):
    self._teacher, self._groups = teacher, groups
    self.is_free = teacher.is_free
    self._requests: queue.SimpleQueue = queue.SimpleQueue()
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
    self._requests.put(sample)

  def _work(self):
    while (sample := self._requests.get()) is not None:
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

  def poll(self) -> str:
    return ""

  def close(self) -> None:
    """Waits for the teacher: a thread cannot be stopped."""
    thread, self._thread, self._is_open = self._thread, None, False
    if thread is not None:
      self._requests.put(None)
      thread.join()


class Cached:
  """Answers with known labels, and asks another labeler about the rest.

  The other labeler is made at the first frame that needs it.
  """

  def __init__(
    self,
    find: Callable[[int], Labels | None],
    make_labeler: Callable[[], Labeler],
  ):
    """Makes no labeler yet.

    Args:
      find: the labels of a frame, None where they are not known.
      make_labeler: of the labeler for the other frames.
    """
    self._find, self._make_labeler = find, make_labeler
    self._inner: Labeler | None = None
    self._known: Answer | None = None

  @property
  def is_free(self) -> bool:
    return self._inner is None or self._inner.is_free

  def ask(self, sample: Sample) -> None:
    labels = self._find(sample.t)
    if labels is not None:
      self._known = Answer(sample, labels, "", 0.0)
      return
    if self._inner is None:
      self._inner = self._make_labeler()
    self._inner.ask(sample)

  def answer(self, wait: bool) -> Answer | None:
    known, self._known = self._known, None
    if known is None and self._inner is not None:
      return self._inner.answer(wait)
    return known

  def poll(self) -> str:
    return self._inner.poll() if self._inner is not None else ""

  def close(self) -> None:
    self._known = None
    if self._inner is not None:
      self._inner.close()
