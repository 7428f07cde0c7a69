"""One teacher for many streams: it looks at frames that wait together at once.

While it works questions gather; then it takes as many of them as it may. One
that comes while it has nothing to do is answered alone.
"""

import collections
import threading
import time
from concurrent.futures import Future
from typing import NamedTuple

from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.teachers import base, labelers
from ojd.types import Labels, Sample


class _Question(NamedTuple):
  sample: Sample
  groups: ClassGroups
  asked_at: float
  answer: Future


class Desk:
  """A teacher in a thread of its own."""

  def __init__(self, teacher: base.Teacher, batch: int):
    """Begins to wait for questions.

    Args:
      teacher: asked from that thread alone.
      batch: the most frames that it looks at at once.
    """
    self.teacher, self._batch = teacher, batch
    self._questions: collections.deque[_Question] = collections.deque()
    self._changed = threading.Condition()
    self._is_closed = False
    self.num_answers = self.num_batches = 0
    self.seconds = 0.0  # that the teacher has worked
    self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
    self._thread.start()

  def submit(self, sample: Sample, groups: ClassGroups) -> Future:
    """A question; the future has an `labelers.Answer`, or a UserError."""
    answer: Future = Future()
    with self._changed:
      if self._is_closed:
        raise RuntimeError("the teacher has been let go")
      question = _Question(sample, groups, time.perf_counter(), answer)
      self._questions.append(question)
      self._changed.notify()
    return answer

  def close(self) -> None:
    """Waits for the answers that are under way; the others' askers fail."""
    with self._changed:
      self._is_closed = True
      left, self._questions = self._questions, collections.deque()
      self._changed.notify()
    for question in left:
      question.answer.cancel()
    self._thread.join()

  def _work(self):
    while questions := self._take():
      self._answer(questions)

  def _take(self):
    """What is looked at next; nothing once the desk is closed."""
    with self._changed:
      while not self._questions and not self._is_closed:
        self._changed.wait()
      number = min(len(self._questions), self._batch)
      return [self._questions.popleft() for _ in range(number)]

  def _answer(self, questions):
    begun = time.perf_counter()
    try:
      found = self._label(questions)
    except Exception as error:
      if len(questions) > 1:
        # One of them may be at fault; the others should not suffer.
        for question in questions:
          self._answer([question])
        return
      if isinstance(error, UserError):
        return questions[0].answer.set_exception(error)
      found = [f"{type(error).__name__}: {error}"]
    seconds = time.perf_counter() - begun
    self.num_answers += len(questions)
    self.num_batches += 1
    self.seconds += seconds
    for question, labels in zip(questions, found, strict=True):
      waited = begun - question.asked_at
      problem = labels if isinstance(labels, str) else ""
      answer = labelers.Answer(
        *(question.sample, None if problem else labels, problem),
        *(seconds, waited),
      )
      question.answer.set_result(answer)

  def _label(self, questions) -> list[Labels]:
    samples = [question.sample for question in questions]
    groups = [question.groups for question in questions]
    if len(questions) > 1:
      return base.label_many(self.teacher, samples, groups)
    found, problem = labelers.retry(
      lambda: base.label(self.teacher, samples[0], groups[0])
    )
    return [found if found is not None else problem]


class AtDesk:
  """The Labeler of one stream, whose teacher is at a desk."""

  def __init__(self, desk: Desk, groups: ClassGroups):
    self._desk, self._groups = desk, groups
    self.is_free = desk.teacher.is_free
    self._answer: Future | None = None

  def ask(self, sample: Sample) -> None:
    self._answer = self._desk.submit(sample, self._groups)

  def answer(self, wait: bool) -> labelers.Answer | None:
    if self._answer is None or not (wait or self._answer.done()):
      return None
    answer, self._answer = self._answer, None
    return answer.result()

  def poll(self) -> str:
    return ""

  def close(self) -> None:
    self._answer = None
