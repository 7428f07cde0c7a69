"""Teachers that are actors, each a desk, and how streams ask them."""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.exceptions

from ojd.errors import UserError
from ojd.fleet.teachers import Counts, Desks
from ojd.labels import ClassGroups
from ojd.run import build
from ojd.run.build import Job
from ojd.run.config import RunConfig
from ojd.streams.base import StreamSpec
from ojd.teachers import base, labelers
from ojd.types import Labels, Sample

_AT_ONCE = 1000  # questions that wait at a replica
_REST_SECONDS = 1.0  # for a replica that has just failed
_GIVE_UP_SECONDS = 120.0
_LOST = (ray.exceptions.RayActorError, ray.exceptions.RaySystemError)


class Replica:
  """In its own process: the teachers that streams have asked for so far."""

  def __init__(self, config: RunConfig, batch: int | None):
    """Opens nothing yet."""
    self._config, self._desks = config, Desks(batch)

  def describe(self, spec: StreamSpec) -> tuple[tuple[str, ...], bool]:
    """Class names of a stream's teacher, and whether it is free."""
    teacher = self._desks.open(self._config, spec)
    return tuple(teacher.class_names), bool(teacher.is_free)

  def label(
    self,
    spec: StreamSpec,
    sample: Sample,
    groups: ClassGroups,
  ) -> labelers.Answer:
    """Waits for the answer; it goes back without the frame."""
    desk = self._desks.desk(self._config, spec)
    answer = desk.submit(sample, groups).result()
    labels = answer.labels
    if labels is not None:
      labels = Labels(*map(np.asarray, labels))
    return answer._replace(sample=None, labels=labels)

  def counts(self) -> Counts:
    """What it has done since it was started."""
    return self._desks.counts()


def start(
  config: RunConfig,
  batch: int | None,
  *,
  number: int,
  num_gpus: float,
  num_cpus: float,
) -> list[Any]:
  """Actors, which Ray starts again wherever they end.

  Args:
    config: names the teacher.
    batch: the most frames that one looks at at once.
    number: of actors.
    num_gpus: of each; several share one where it is a fraction.
    num_cpus: of each.
  """
  make = ray.remote(Replica).options(
    num_gpus=num_gpus,
    num_cpus=num_cpus,
    max_restarts=-1,
    max_concurrency=_AT_ONCE,
    scheduling_strategy="SPREAD",
  )
  return [make.remote(config, batch) for _ in range(number)]


class RemoteTeacher(NamedTuple):
  """What a stream knows of a teacher that is asked by `Replicas.labeler`."""

  class_names: tuple[str, ...]
  is_free: bool


class Replicas:
  """The Teachers of streams that are elsewhere than these."""

  def __init__(self, actors: Sequence[Any], clock=time.monotonic):
    """Takes actors of `start`."""
    self._actors, self._clock = list(actors), clock
    self._open: Counter[int] = Counter()  # questions of this process
    self._resting: dict[int, float] = {}  # until when
    self._turn = itertools.count()

  def open(self, config: RunConfig, spec: StreamSpec) -> base.Teacher:
    if base.is_of_one_stream(config.teacher):
      return build.make_teacher(config, spec)
    ask = lambda actor: actor.describe.remote(spec)
    return RemoteTeacher(*self.insist(ask))

  def labeler(self, job: Job) -> labelers.Labeler:
    if not isinstance(job.teacher, RemoteTeacher):
      return build.make_labeler(job)
    return _Asking(self, job)

  def counts(self) -> Counts:
    """Nobody's here: the replicas count for all streams together."""
    return Counts()

  def close(self) -> None:
    """They are not this process's to end."""

  def insist(self, ask: Callable[[Any], Any]) -> Any:
    """The answer of some replica, however many are lost on the way."""
    end = self._clock() + _GIVE_UP_SECONDS
    while True:
      number = self._pick()
      self._open[number] += 1
      try:
        return ray.get(ask(self._actors[number]))
      except _LOST as error:
        self._resting[number] = self._clock() + _REST_SECONDS
        if self._clock() > end:
          raise RuntimeError(f"no teacher answers: {_words(error)}") from None
      except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
          raise UserError(str(error.cause)) from None
        raise RuntimeError(_words(error.cause)) from None
      finally:
        self._open[number] -= 1

  def _pick(self) -> int:
    """The one with the fewest questions of ours; waits where all rest."""
    while True:
      now = self._clock()
      awake = [
        i for i in range(len(self._actors)) if self._resting.get(i, now) <= now
      ]
      if awake:
        first = next(self._turn)
        return min(
          awake, key=lambda i: (self._open[i], (i - first) % len(self._actors))
        )
      time.sleep(_REST_SECONDS / 10)


class _Asking:
  """The Labeler of one stream, whose thread waits for the replicas."""

  def __init__(self, replicas: Replicas, job: Job):
    self._replicas = replicas
    spec = job.stream.spec
    # What a teacher may need to know of the stream, and no more.
    self._spec = spec._replace(identity={})
    self._groups = job.groups
    self.is_free = job.teacher.is_free
    self._sample: Sample | None = None

  def ask(self, sample: Sample) -> None:
    self._sample = sample

  def answer(self, wait: bool) -> labelers.Answer | None:
    del wait  # nobody else could ask again if a replica is lost
    sample, self._sample = self._sample, None
    if sample is None:
      return None
    begun = time.perf_counter()
    ask = lambda actor: actor.label.remote(self._spec, sample, self._groups)
    try:
      answer = self._replicas.insist(ask)
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


def counts_of(actors: Sequence[Any]) -> list[Counts]:
  """Of each actor that answers at once."""
  found = []
  refs = [actor.counts.remote() for actor in actors]
  ready, _ = ray.wait(refs, num_returns=len(refs), timeout=1.0)
  for ref in ready:
    with contextlib.suppress(ray.exceptions.RayError):
      found.append(ray.get(ref))
  return found


def _words(error):
  return " ".join(str(error).split())[:200]
