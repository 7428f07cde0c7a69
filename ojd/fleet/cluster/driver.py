"""A fleet on a Ray cluster, as the process sees it that asked for it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray
import ray.exceptions

from ojd.errors import UserError
from ojd.fleet import fleet, summary
from ojd.fleet.cluster import connecting, crew, purses, replicas
from ojd.fleet.listing import Entry
from ojd.fleet.member import STOPPED, Member
from ojd.fleet.teachers import Counts, total
from ojd.run import config as config_lib
from ojd.run.config import RunConfig

_LOOK_SECONDS = 1.0  # between two looks at everybody
_STOP_SECONDS = 120.0  # for all streams of an actor to come to a checkpoint


class Plan(NamedTuple):
  """What of a cluster a fleet takes."""

  num_crews: int | None = None  # actors that run streams; None: one a node
  num_replicas: int = 1
  replica_gpus: float = 0.0
  replica_cpus: float = 0.25
  crew_gpus: float = 0.0
  # Little: where nodes leave, those that stay must have room for all.
  crew_cpus: float = 0.25
  batch: int | None = None  # of a replica


@dataclasses.dataclass
class _Crew:
  """An actor and what it is at."""

  actor: Any
  entries: list[Entry]
  running: Any  # the reference of its `run`
  members: list[Member]
  asked: Any = None  # the reference of its `status`
  node: str = ""


def run(
  request: fleet.Request,
  plan: Plan,
  command_fn: Callable[[RunConfig], str],
  *,
  progress_fn: fleet.ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
  """`fleet.run` over the nodes of the cluster that this process has joined.

  All of them see the fleet's folder.

  Streams of a lost actor go on elsewhere from their last checkpoints; where a
  node joins, streams of the fullest actors go on there.
  """
  connecting.check_gpus(plan.replica_gpus, "replica_gpus")
  connecting.check_gpus(plan.crew_gpus, "actor_gpus")
  with fleet.begun(request, progress_fn) as entries:
    site = _Site(request, plan, command_fn, entries, progress_fn)
    try:
      site.run(should_stop)
    finally:
      site.close()
    return summary.write(request.path, *site.account())


def deal(entries: Sequence[Entry], num_crews: int) -> list[list[Entry]]:
  """In turn to so many, none of whom goes empty-handed."""
  num = max(1, min(num_crews, len(entries)))
  return [list(entries[i::num]) for i in range(num)]


def give_up(sizes: Sequence[int], number: int) -> list[int]:
  """How many streams each actor gives up, that so many are moved.

  The fullest give first; nobody gives its last.
  """
  left = list(sizes)
  for _ in range(number):
    fullest = left.index(max(left))
    left[fullest] -= left[fullest] > 1
  return [before - after for before, after in zip(sizes, left, strict=True)]


class _Site:
  """All actors of a fleet."""

  def __init__(self, request, plan, command_fn, entries, progress_fn):
    self._plan, self._config = plan, request.config
    self._progress_fn, self._began = progress_fn, time.perf_counter()
    self._nodes = _nodes()
    self._replicas = replicas.start(
      request.config,
      plan.batch,
      number=plan.num_replicas,
      num_gpus=plan.replica_gpus,
      num_cpus=plan.replica_cpus,
    )
    self._purse = None
    if request.teacher_rate is not None:
      names = [entry.name for entry in entries]
      threshold = config_lib.target(request.config)
      self._purse = purses.start(request.teacher_rate, names, threshold)
    self._kit = crew.Kit(
      request._replace(entries=(), devices=()),
      *(self._replicas, self._purse, command_fn),
    )
    self._ended: dict[str, Member] = {}
    self._is_stopping, self._counts = False, Counts()
    self._num_frames = 0
    number = plan.num_crews or len(self._nodes)
    self._per_node = max(1, number // max(len(self._nodes), 1))
    self._crews = [self._start(part) for part in deal(entries, number)]

  def _start(self, entries, node=None) -> _Crew:
    plan = self._plan
    actor = crew.start(plan.crew_cpus, plan.crew_gpus, node)
    running = actor.run.remote(self._kit, list(entries))
    return _Crew(actor, list(entries), running, [])

  def run(self, should_stop):
    """Until every actor is through with its streams."""
    while self._crews:
      refs = [one.running for one in self._crews]
      ready, _ = ray.wait(refs, timeout=_LOOK_SECONDS)
      for one in [x for x in self._crews if x.running in ready]:
        self._take_leave(one)
      if should_stop() and not self._is_stopping:
        self._is_stopping = True
        for one in self._crews:
          one.actor.stop.remote()
      self._look()
      if not self._is_stopping:
        self._welcome_nodes()

  def _take_leave(self, one):
    self._hear(one)
    left = self._take_result(one)
    if left and not self._is_stopping:
      # It had been asked for some of them, and was slow.
      one.entries = left
      one.running = one.actor.run.remote(self._kit, left)
      return
    self._crews.remove(one)
    ray.kill(one.actor)

  def _take_result(self, one) -> list[Entry]:
    """Notes what came of an actor's streams; those that are not over."""
    try:
      outcome: crew.Outcome = ray.get(one.running)
    except ray.exceptions.RayTaskError as error:
      if isinstance(error.cause, UserError):
        raise UserError(str(error.cause)) from None
      raise
    for words in outcome.news:
      self._show(words, Counts())
    members = {member.name: member for member in outcome.members}
    self._ended |= members
    self._num_frames += outcome.account.num_frames
    stopped = {x for x, member in members.items() if member.state == STOPPED}
    return [entry for entry in one.entries if entry.name in stopped]

  def _look(self):
    """Asks every actor where it is, and waits for none of them."""
    for one in self._crews:
      if one.asked is None:
        one.asked = one.actor.status.remote()
      elif ray.wait([one.asked], timeout=0)[0]:
        self._hear(one)
    counts = total(replicas.counts_of(self._replicas))
    self._show("", counts)

  def _hear(self, one):
    with contextlib.suppress(ray.exceptions.RayError):
      status = ray.get(one.asked, timeout=_LOOK_SECONDS) if one.asked else None
      for words in status.news if status else ():
        self._show(words, Counts())
      one.members = list(status.members) if status else one.members
    one.asked = None

  def _show(self, news, counts):
    members = dict(self._ended)
    for one in self._crews:
      there = {member.name: member for member in one.members}
      for entry in one.entries:
        blank = Member(entry.name, self._config)
        members[entry.name] = there.get(entry.name, blank)
    seconds = time.perf_counter() - self._began
    self._progress_fn(
      fleet.Progress(list(members.values()), counts, seconds, news)
    )

  def _welcome_nodes(self):
    """Moves streams to nodes that have come; lost ones Ray sees to."""
    now = _nodes()
    news, self._nodes = now - self._nodes, now
    for node in sorted(news):
      sizes = [len(one.entries) for one in self._crews]
      gifts = give_up(sizes, sum(sizes) // len(now))
      moved = []
      for one, number in zip(list(self._crews), gifts, strict=True):
        if number:
          moved += self._take_from(one, number)
      if moved:
        self._show(f"a node has come: {len(moved)} streams go there", Counts())
        for part in deal(moved, self._per_node):
          self._crews.append(self._start(part, node))

  def _take_from(self, one, number) -> list[Entry]:
    """Stops an actor, and lets it go on without some of its streams."""
    one.actor.stop.remote()
    ready, _ = ray.wait([one.running], timeout=_STOP_SECONDS)
    if not ready:
      return []  # it stops later, and goes on with all
    left = self._take_result(one)
    kept = left[: max(len(left) - number, 0)]
    one.entries, one.members = kept, []
    one.running = one.actor.run.remote(self._kit, kept)
    return left[len(kept) :]

  def account(self) -> tuple[list[Member], summary.Account]:
    """All streams, and what they took."""
    granted, deferred = 0, 0
    if self._purse is not None:
      with contextlib.suppress(ray.exceptions.RayError):
        granted, deferred = ray.get(self._purse.counts.remote(), timeout=10)
    members = sorted(self._ended.values(), key=lambda member: member.name)
    seconds = time.perf_counter() - self._began
    return members, summary.Account(
      seconds, self._num_frames, self._counts, granted, deferred
    )

  def close(self):
    """Ends every actor, whatever it is at."""
    self._counts = total(replicas.counts_of(self._replicas))
    actors = [one.actor for one in self._crews] + self._replicas
    for actor in [*actors, *filter(None, [self._purse])]:
      with contextlib.suppress(Exception):
        ray.kill(actor)


def _nodes() -> set[str]:
  """Ids of the nodes that live and may work."""
  return {
    node["NodeID"]
    for node in ray.nodes()
    if node["Alive"] and node["Resources"].get("CPU", 0) > 0
  }
