"""A fleet's teachers on one machine: each serves all streams that it can."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ojd.fleet.desk import AtDesk, Desk
from ojd.run import build
from ojd.run.build import Job
from ojd.run.config import RunConfig
from ojd.streams.base import StreamSpec
from ojd.teachers import base, labelers

# On a CPU several frames at once are a sixth faster at best, and answered
# otherwise in the last digits; a GPU wants many.
BATCH_ON_CPU, BATCH_ON_GPU = 1, 8


class Counts(NamedTuple):
  """What shared teachers have done."""

  num_teachers: int = 0
  num_answers: int = 0
  num_batches: int = 0
  seconds: float = 0.0  # of their work


class Teachers(Protocol):
  """Where the streams of a fleet have their teachers from."""

  def open(self, config: RunConfig, spec: StreamSpec) -> base.Teacher:
    """The teacher of a stream, which may be others' too."""
    ...

  def labeler(self, job: Job) -> labelers.Labeler:
    """Who asks it for that stream."""
    ...

  def counts(self) -> Counts:
    """Of those that are shared."""
    ...

  def close(self) -> None:
    """Lets them go."""
    ...


class Desks:
  """In this process, a desk for each teacher that is shared."""

  def __init__(self, batch: int | None):
    """Opens nothing yet.

    Args:
      batch: the most frames looked at at once; None for what suits the device.
    """
    self._batch = batch
    self._desks: dict[tuple[Any, ...], Desk] = {}
    self._opening = threading.Lock()

  def open(self, config: RunConfig, spec: StreamSpec) -> base.Teacher:
    if base.is_of_one_stream(config.teacher):
      return build.make_teacher(config, spec)
    return self.desk(config, spec).teacher

  def desk(self, config: RunConfig, spec: StreamSpec) -> Desk:
    """That of a stream whose teacher is shared."""
    context = build.teacher_context(config, spec)
    key = base.sharing_key(config.teacher, context)
    with self._opening:
      if key not in self._desks:
        teacher = build.make_teacher(config, spec)
        batch = self._batch or _suitable(teacher)
        self._desks[key] = Desk(teacher, batch)
    return self._desks[key]

  def labeler(self, job: Job) -> labelers.Labeler:
    for desk in self._desks.values():
      if desk.teacher is job.teacher:
        return AtDesk(desk, job.groups)
    return build.make_labeler(job)

  def counts(self) -> Counts:
    return total(
      [
        Counts(1, desk.num_answers, desk.num_batches, desk.seconds)
        for desk in self._desks.values()
      ]
    )

  def close(self) -> None:
    for desk in self._desks.values():
      desk.close()


def total(counts: Sequence[Counts]) -> Counts:
  """Of several teachers."""
  return Counts(*map(sum, zip(Counts(), *counts, strict=True)))


def _suitable(teacher):
  device = getattr(teacher, "device", None)
  on_gpu = device is not None and device.type != "cpu"
  return BATCH_ON_GPU if on_gpu else BATCH_ON_CPU
