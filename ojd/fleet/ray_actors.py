"""The actors of a fleet on a Ray cluster, and their callers' handles.

Teacher replicas label frames, one rate limiter divides their calls, and stream
workers run streams. Ray restarts each of them if its process or its node is
lost.
"""

import contextlib
import dataclasses
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.exceptions

from ojd.errors import UserError
from ojd.fleet import runner
from ojd.fleet.budget import ClockLimiter
from ojd.fleet.handle import StreamHandle
from ojd.fleet.listing import Entry
from ojd.fleet.teachers import Counts, Teachers
from ojd.labels import ClassGroups
from ojd.run import build, compilation
from ojd.run.build import Job
from ojd.run.config import RunConfig
from ojd.streams.base import StreamSpec
from ojd.teachers import base, labelers
from ojd.types import Labels, Sample

_MAX_REQUESTS = 1000  # that wait at a replica
_BACKOFF_SECONDS = 1.0  # for a replica that has just failed
_GIVE_UP_SECONDS = 120.0
_LOST = (ray.exceptions.RayActorError, ray.exceptions.RaySystemError)


class Plan(NamedTuple):
  """The part of a cluster that a fleet uses."""

  num_workers: int | None = None  # None: one a node
  num_replicas: int = 1
  replica_gpus: float = 0.0
  replica_cpus: float = 0.25
  worker_gpus: float = 0.0
  # Little: where nodes leave, those that stay must have room for all.
  worker_cpus: float = 0.25
  batch: int | None = None  # of a replica


class TeacherReplica:
  """An actor: the teachers that streams have asked for so far."""

  def __init__(self, config: RunConfig, batch: int | None):
    """Opens nothing yet."""
    self._config, self._teachers = config, Teachers(batch)

  def describe(self, spec: StreamSpec) -> tuple[tuple[str, ...], bool]:
    """Class names of a stream's teacher, and whether it is free."""
    teacher = self._teachers.open(self._config, spec)
    return tuple(teacher.class_names), bool(teacher.is_free)

  def label(
    self, spec: StreamSpec, sample: Sample, groups: ClassGroups
  ) -> labelers.Answer:
    """Waits for the answer, and returns it without the frame."""
    teacher = self._teachers.shared(self._config, spec)
    answer = teacher.submit(sample, groups).result()
    labels = answer.labels
    if labels is not None:
      labels = Labels(*map(np.asarray, labels))
    return answer._replace(sample=None, labels=labels)

  def counts(self) -> Counts:
    """The counts since the start."""
    return self._teachers.counts()


def start_replicas(config: RunConfig, plan: Plan) -> list[Any]:
  """Starts the replicas of a config's teacher."""
  make = ray.remote(TeacherReplica).options(
    num_gpus=plan.replica_gpus,
    num_cpus=plan.replica_cpus,
    max_restarts=-1,
    max_concurrency=_MAX_REQUESTS,
    scheduling_strategy="SPREAD",
  )
  return [make.remote(config, plan.batch) for _ in range(plan.num_replicas)]


def replica_counts(replicas: Sequence[Any]) -> list[Counts]:
  """The counts of each replica that answers at once."""
  refs = [replica.counts.remote() for replica in replicas]
  ready, _ = ray.wait(refs, num_returns=len(refs), timeout=1.0)
  found = []
  for ref in ready:
    with contextlib.suppress(ray.exceptions.RayError):
      found.append(ray.get(ref))
  return found


class RemoteTeacher(NamedTuple):
  """A stream's description of the teacher behind a `RemoteLabeler`."""

  class_names: tuple[str, ...]
  is_free: bool


class RemoteTeachers:
  """Remote replicas for this process's streams, like `Teachers`."""

  def __init__(self, replicas: Sequence[Any]):
    """Takes actors of `start_replicas`."""
    self._replicas = list(replicas)
    self._open: Counter[int] = Counter()  # requests of this process
    self._ready_at: dict[int, float] = {}  # of those that failed
    self._turn = itertools.count()

  def open(self, config: RunConfig, spec: StreamSpec) -> base.Teacher:
    if base.is_of_one_stream(config.teacher):
      return build.make_teacher(config, spec)
    return RemoteTeacher(*self.call(lambda x: x.describe.remote(spec)))

  def labeler(self, job: Job) -> labelers.Labeler:
    if not isinstance(job.teacher, RemoteTeacher):
      return build.make_labeler(job)
    return RemoteLabeler(self, job)

  def counts(self) -> Counts:
    """Nothing: the replicas count for all processes together."""
    return Counts()

  def close(self) -> None:
    """Nothing: the replicas are not this process's to end."""

  def call(self, submit: Callable[[Any], Any]) -> Any:
    """The answer of a replica; if one is lost, another one is tried."""
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    while True:
      number = self._pick()
      self._open[number] += 1
      try:
        return ray.get(submit(self._replicas[number]))
      except _LOST as error:
        self._ready_at[number] = time.monotonic() + _BACKOFF_SECONDS
        if time.monotonic() > deadline:
          raise RuntimeError(f"no teacher answers: {_words(error)}") from None
      except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
          raise UserError(str(error.cause)) from None
        raise RuntimeError(_words(error.cause)) from None
      finally:
        self._open[number] -= 1

  def _pick(self) -> int:
    """The replica with the fewest open requests, in turn among equals."""
    num = len(self._replicas)
    while True:
      now = time.monotonic()
      ready = [i for i in range(num) if self._ready_at.get(i, now) <= now]
      if ready:
        first = next(self._turn)
        return min(ready, key=lambda i: (self._open[i], (i - first) % num))
      time.sleep(_BACKOFF_SECONDS / 10)


class RemoteLabeler:
  """The Labeler of one stream, whose thread waits for the replicas."""

  def __init__(self, teachers: RemoteTeachers, job: Job):
    self._teachers, self._groups = teachers, job.groups
    # What a teacher may need to know of the stream, and no more.
    self._spec = job.stream.spec._replace(identity={})
    self.is_free = job.teacher.is_free
    self._sample: Sample | None = None

  def ask(self, sample: Sample) -> None:
    self._sample = sample

  def answer(self, wait: bool) -> labelers.Answer | None:
    del wait  # nobody else could try again if a replica is lost
    sample, self._sample = self._sample, None
    if sample is None:
      return None
    begun = time.perf_counter()
    try:
      answer = self._teachers.call(
        lambda replica: replica.label.remote(self._spec, sample, self._groups)
      )
    except RuntimeError as error:
      return labelers.Answer(sample, None, str(error), 0.0)
    spent = time.perf_counter() - begun
    # On the way to the teacher and back is waiting, too.
    waited = max(spent - answer.seconds, 0.0)
    return answer._replace(sample=sample, waited=waited)

  def poll(self) -> str:
    return ""

  def close(self) -> None:
    self._sample = None


def _words(error):
  return " ".join(str(error).split())[:200]


def start_limiter(rate: float, names: Sequence[str], threshold: float) -> Any:
  """Starts the limiter's actor; if lost, it restarts without estimates."""
  make = ray.remote(ClockLimiter).options(
    num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1
  )
  return make.remote(rate, list(names), threshold)


class RemoteLimiter:
  """A remote limiter for this process's streams, like `RateLimiter`."""

  def __init__(self, actor: Any):
    self._actor = actor

  def acquire(self, name: str, seconds: float) -> bool:
    return ray.get(self._actor.acquire.remote(name, seconds))

  def advance(self, name: str, line: dict[str, Any], seconds: float) -> None:
    """Sends what was learned; other frames change no priority."""
    if line.get("miou_after") is not None:
      line = {key: line[key] for key in ("miou_before", "miou_after")}
      self._actor.advance.remote(name, line, seconds)

  def leave(self, name: str) -> None:
    """A stream that stops here may go on elsewhere: it stays known."""

  def counts(self) -> tuple[int, int]:
    return 0, 0


class Status(NamedTuple):
  """The progress of a worker's streams, or their ends."""

  handles: Sequence[StreamHandle]
  news: Sequence[str]  # since the status before
  num_frames: int = 0  # of a run that is over


class Resources(NamedTuple):
  """The resources that the workers of a fleet share."""

  request: runner.Request  # its streams are those of `run`
  replicas: Sequence[Any]  # teachers
  limiter: Any  # of their calls; None where there is no limit
  command_fn: Callable[[RunConfig], str]  # how a stream is run alone


class StreamWorker:
  """An actor that runs streams, and resumes its earlier ones.

  If its process or its node is lost, Ray restarts it and calls `run` again:
  each stream then resumes from its last checkpoint.
  """

  def __init__(self):
    """Compiles nothing yet."""
    self._stop = threading.Event()
    self._progress = runner.Progress([], Counts(), 0.0)
    self._news: list[str] = []
    compilation.enable_cache(compilation.default_cache())

  def run(self, shared: Resources, entries: Sequence[Entry]) -> Status:
    """Runs until all streams are over, or `stop` is called."""
    self._stop.clear()
    limiter = shared.limiter
    handles, account = runner.run_streams(
      shared.request._replace(entries=entries),
      RemoteTeachers(shared.replicas),
      shared.command_fn,
      limiter=RemoteLimiter(limiter) if limiter is not None else None,
      progress_fn=self._note,
      should_stop=self._stop.is_set,
    )
    return self._status(handles, account.num_frames)

  def _note(self, progress):
    if progress.news:
      self._news.append(progress.news)
    self._progress = progress

  def stop(self) -> None:
    """Lets all streams end at their next frame, at a checkpoint."""
    self._stop.set()

  def status(self) -> Status:
    """The status; to be polled."""
    return self._status(self._progress.handles)

  def _status(self, handles, num_frames=0):
    """The status as another process gets it; clears the news."""
    news, self._news = self._news, []
    there = [dataclasses.replace(one, job=None) for one in handles]
    return Status(there, news, num_frames)


def start_worker(plan: Plan, node: str | None = None) -> Any:
  """Starts a stream worker, on the node of that id if there is room."""
  strategy: Any = "SPREAD"
  if node is not None:
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
      node, soft=True
    )
  make = ray.remote(StreamWorker).options(
    num_cpus=plan.worker_cpus,
    num_gpus=plan.worker_gpus,
    max_restarts=-1,
    max_task_retries=-1,
    max_concurrency=8,  # it is asked and stopped while it runs
    scheduling_strategy=strategy,
  )
  return make.remote()
