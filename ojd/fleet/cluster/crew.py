"""An actor that runs some of a fleet's streams, on whatever node it is."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray

from ojd.fleet import fleet, summary
from ojd.fleet.cluster.purses import RemotePurse
from ojd.fleet.cluster.replicas import Replicas
from ojd.fleet.listing import Entry
from ojd.fleet.member import Member
from ojd.fleet.teachers import Counts
from ojd.run import compilation
from ojd.run.config import RunConfig


class Status(NamedTuple):
  """Where an actor's streams are."""

  members: Sequence[Member]
  news: Sequence[str]  # since it was last asked


class Outcome(NamedTuple):
  """What came of an actor's streams."""

  members: Sequence[Member]
  account: summary.Account
  news: Sequence[str]  # that nobody has asked for


class Kit(NamedTuple):
  """What the actors of a fleet have in common."""

  request: fleet.Request  # its streams are those of `run`
  replicas: Sequence[Any]  # the teachers
  purse: Any  # of their calls; None where there is no limit
  command_fn: Callable[[RunConfig], str]  # how a stream is run alone


class Crew:
  """Runs the streams of a list; those that it ran before go on.

  Ray starts it again where its process or its node is lost, and calls `run`
  again: each stream then goes on from its last checkpoint.
  """

  def __init__(self):
    """Compiles nothing yet."""
    self._stop = threading.Event()
    self._progress = fleet.Progress([], Counts(), 0.0)
    self._news: list[str] = []
    compilation.enable_cache(compilation.default_cache())

  def run(self, kit: Kit, entries: Sequence[Entry]) -> Outcome:
    """Until all are over, or `stop` was called."""
    self._stop.clear()
    members, account = fleet.live(
      kit.request._replace(entries=entries),
      Replicas(kit.replicas),
      kit.command_fn,
      own_purse=RemotePurse(kit.purse) if kit.purse is not None else None,
      progress_fn=self._note,
      should_stop=self._stop.is_set,
    )
    told = [_told(one) for one in members]
    return Outcome(told, account, self._take_news())

  def _note(self, progress):
    if progress.news:
      self._news.append(progress.news)
    self._progress = progress

  def stop(self) -> None:
    """Lets all streams end at their next frame, at a checkpoint."""
    self._stop.set()

  def status(self) -> Status:
    """To be asked now and then."""
    members = [_told(one) for one in self._progress.members]
    return Status(members, self._take_news())

  def _take_news(self):
    news, self._news = self._news, []
    return news


def _told(one: Member) -> Member:
  """What can be said of a stream elsewhere."""
  config, state, problem = one.config, one.state, one.problem
  told = Member(one.name, config, state, None, one.progress, one.summary)
  told.problem, told.started_from = problem, one.started_from
  return told


def start(num_cpus: float, num_gpus: float, node: str | None = None) -> Any:
  """An actor.

  Args:
    num_cpus: that are kept for it.
    num_gpus: likewise.
    node: the id of one that it begins on, if there is room.
  """
  strategy: Any = "SPREAD"
  if node is not None:
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
      node, soft=True
    )
  make = ray.remote(Crew).options(
    num_cpus=num_cpus,
    num_gpus=num_gpus,
    max_restarts=-1,
    max_task_retries=-1,
    max_concurrency=8,  # it is asked and stopped while it runs
    scheduling_strategy=strategy,
  )
  return make.remote()
