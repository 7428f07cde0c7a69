"""Shared teachers: requests of many streams that wait together are batched.

While a teacher works, requests gather; then it takes as many of them as a batch
holds. A request that comes while the teacher is idle is answered alone.
"""

import collections
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.run import build
from ojd.run.build import Job
from ojd.run.config import RunConfig
from ojd.streams.base import StreamSpec
from ojd.teachers import base, labelers
from ojd.types import Labels, Sample

# On a CPU several frames at once are a sixth faster at best, and answers differ
# in the last digits; a GPU wants many.
BATCH_ON_CPU, BATCH_ON_GPU = 1, 8


class Counts(NamedTuple):
  """What shared teachers have done."""

  num_teachers: int = 0
  num_answers: int = 0
  num_batches: int = 0
  seconds: float = 0.0  # of their work


def total(counts: Iterable[Counts]) -> Counts:
  """The sum over several teachers."""
  return Counts(*map(sum, zip(Counts(), *counts, strict=True)))


class _Request(NamedTuple):
  sample: Sample
  groups: ClassGroups
  time: float
  future: Future


class BatchedTeacher:
  """A teacher in a thread of its own that labels waiting frames together."""

  def __init__(self, teacher: base.Teacher, batch: int):
    """Starts to wait for requests.

    Args:
      teacher: called from that thread alone.
      batch: the most frames that it labels at once.
    """
    self.teacher, self._batch = teacher, batch
    self._requests: collections.deque[_Request] = collections.deque()
    self._changed = threading.Condition()
    self._is_closed = False
    self._counts = Counts(num_teachers=1)
    self._thread = threading.Thread(
      target=self._work, name="batched teacher", daemon=True
    )
    self._thread.start()

  def submit(self, sample: Sample, groups: ClassGroups) -> Future:
    """A request; the future has a `labelers.Answer`, or a UserError."""
    future: Future = Future()
    with self._changed:
      if self._is_closed:
        raise RuntimeError("the teacher is closed")
      now = time.perf_counter()
      self._requests.append(_Request(sample, groups, now, future))
      self._changed.notify()
    return future

  def counts(self) -> Counts:
    """What it has done."""
    return self._counts

  def close(self) -> None:
    """Waits for the current answers; other requests are dropped."""
    with self._changed:
      self._is_closed = True
      dropped, self._requests = self._requests, collections.deque()
      self._changed.notify()
    for request in dropped:
      request.future.cancel()
    self._thread.join()

  def _work(self):
    while requests := self._take():
      self._answer(requests)

  def _take(self):
    """The next batch; nothing once the teacher is closed."""
    with self._changed:
      while not self._requests and not self._is_closed:
        self._changed.wait()
      number = min(len(self._requests), self._batch)
      return [self._requests.popleft() for _ in range(number)]

  def _answer(self, requests):
    begun = time.perf_counter()
    try:
      found = self._label(requests)
    except Exception as error:
      if len(requests) > 1:
        # One of them may be at fault; the others should not suffer.
        for request in requests:
          self._answer([request])
        return
      if isinstance(error, UserError):
        return requests[0].future.set_exception(error)
      found = [(None, f"{type(error).__name__}: {error}")]
    seconds = time.perf_counter() - begun
    self._counts = total([self._counts, Counts(0, len(requests), 1, seconds)])
    for request, (labels, problem) in zip(requests, found, strict=True):
      request.future.set_result(
        labelers.Answer(
          *(request.sample, labels, problem, seconds),
          waited=begun - request.time,
        )
      )

  def _label(self, requests) -> list[tuple[Labels | None, str]]:
    """For each request its labels, or none and why."""
    samples = [request.sample for request in requests]
    groups = [request.groups for request in requests]
    if len(requests) > 1:
      many = base.label_many(self.teacher, samples, groups)
      return [(labels, "") for labels in many]
    ask = lambda: base.label(self.teacher, samples[0], groups[0])
    return [labelers.retry(ask)]


class BatchedLabeler:
  """The Labeler of one stream of a batched teacher."""

  def __init__(self, teacher: BatchedTeacher, groups: ClassGroups):
    self._teacher, self._groups = teacher, groups
    self.is_free = teacher.teacher.is_free
    self._future: Future | None = None

  def ask(self, sample: Sample) -> None:
    self._future = self._teacher.submit(sample, self._groups)

  def answer(self, wait: bool) -> labelers.Answer | None:
    if self._future is None or not (wait or self._future.done()):
      return None
    future, self._future = self._future, None
    return future.result()

  def poll(self) -> str:
    return ""

  def close(self) -> None:
    self._future = None


class Teachers:
  """Teachers in this process, each of them batched where it can be shared."""

  def __init__(self, batch: int | None):
    """Opens nothing yet.

    Args:
      batch: the most frames labelled at once; None for what suits the device.
    """
    self._batch = batch
    self._shared: dict[tuple[Any, ...], BatchedTeacher] = {}
    self._opening = threading.Lock()

  def open(self, config: RunConfig, spec: StreamSpec) -> base.Teacher:
    """The teacher of a stream, which other streams may share."""
    if base.is_of_one_stream(config.teacher):
      return build.make_teacher(config, spec)
    return self.shared(config, spec).teacher

  def shared(self, config: RunConfig, spec: StreamSpec) -> BatchedTeacher:
    """The shared teacher of a stream."""
    context = build.teacher_context(config, spec)
    key = base.sharing_key(config.teacher, context)
    with self._opening:
      if key not in self._shared:
        teacher = build.make_teacher(config, spec)
        batch = self._batch or _suitable_batch(teacher)
        self._shared[key] = BatchedTeacher(teacher, batch)
    return self._shared[key]

  def labeler(self, job: Job) -> labelers.Labeler:
    """The labeler of a job whose teacher is of `open`."""
    for shared in self._shared.values():
      if shared.teacher is job.teacher:
        return BatchedLabeler(shared, job.groups)
    return build.make_labeler(job)

  def counts(self) -> Counts:
    """The counts of the shared teachers."""
    return total(shared.counts() for shared in self._shared.values())

  def close(self) -> None:
    """Closes the shared teachers."""
    for shared in self._shared.values():
      shared.close()


def _suitable_batch(teacher):
  device = getattr(teacher, "device", None)
  on_gpu = device is not None and device.type != "cpu"
  return BATCH_ON_GPU if on_gpu else BATCH_ON_CPU
