"""A fleet on a Ray cluster, driven from the calling process."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
import ray.exceptions

from ojd.errors import UserError
from ojd.fleet import ray as cluster
from ojd.fleet import ray_actors, runner, summary
from ojd.fleet.handle import STOPPED, StreamHandle
from ojd.fleet.listing import Entry
from ojd.fleet.teachers import Counts, total
from ojd.run import config as config_lib
from ojd.run.config import RunConfig

_POLL_SECONDS = 1.0
_STOP_SECONDS = 120.0  # for all streams of a worker to come to a checkpoint


@dataclasses.dataclass
class _Worker:
  """A stream worker and its status."""

  actor: Any
  entries: list[Entry]
  running: Any  # the reference of its `run`
  handles: list[StreamHandle] = dataclasses.field(default_factory=list)
  status: Any = None  # the reference of its `status`


def run(
  request: runner.Request,
  plan: ray_actors.Plan,
  command_fn: Callable[[RunConfig], str],
  *,
  progress_fn: runner.ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
  """`runner.run` over the nodes of the cluster that this process has joined.

  All nodes see the fleet's folder. Streams of a lost worker resume elsewhere
  from their last checkpoints. When a node joins, streams of the fullest workers
  move there.
  """
  cluster.check_gpus(plan.replica_gpus, "replica_gpus")
  cluster.check_gpus(plan.worker_gpus, "actor_gpus")
  with runner.claimed(request, progress_fn) as entries:
    driver = _Driver(request, plan, command_fn, entries, progress_fn)
    try:
      driver.run(should_stop)
    finally:
      driver.close()
    return summary.write(request.path, *driver.account())


def deal(entries: Sequence[Entry], num_workers: int) -> list[list[Entry]]:
  """Deals streams in turn; each worker has at least one."""
  num = max(1, min(num_workers, len(entries)))
  return [list(entries[i::num]) for i in range(num)]


def give_up(sizes: Sequence[int], number: int) -> list[int]:
  """How many streams each worker gives up, for so many to move.

  The fullest give first, and each keeps at least one.
  """
  left = list(sizes)
  for _ in range(number):
    fullest = left.index(max(left))
    left[fullest] -= left[fullest] > 1
  return [before - after for before, after in zip(sizes, left, strict=True)]


class _Driver:
  """Starts all actors of a fleet, and polls them."""

  def __init__(self, request, plan, command_fn, entries, progress_fn):
    self._plan, self._config = plan, request.config
    self._progress_fn, self._began = progress_fn, time.perf_counter()
    self._nodes = _nodes()
    self._replicas = ray_actors.start_replicas(request.config, plan)
    self._limiter = None
    if request.teacher_rate is not None:
      self._limiter = ray_actors.start_limiter(
        request.teacher_rate,
        [entry.name for entry in entries],
        config_lib.target(request.config),
      )
    self._shared = ray_actors.Resources(
      request._replace(entries=(), devices=()),
      *(self._replicas, self._limiter, command_fn),
    )
    self._limited = (0, 0)  # requests granted and deferred
    self._ended: dict[str, StreamHandle] = {}
    self._is_stopping, self._counts, self._num_frames = False, Counts(), 0
    number = plan.num_workers or len(self._nodes)
    self._per_node = max(1, number // max(len(self._nodes), 1))
    self._workers = [self._start(part) for part in deal(entries, number)]

  def _start(self, entries, node=None) -> _Worker:
    actor = ray_actors.start_worker(self._plan, node)
    return _Worker(actor, entries, actor.run.remote(self._shared, entries))

  def _restart(self, worker, entries):
    """Restarts a stopped worker with these streams."""
    worker.entries, worker.handles = entries, []
    worker.running = worker.actor.run.remote(self._shared, entries)

  def run(self, should_stop):
    """Runs until every worker has finished its streams."""
    while self._workers:
      refs = [worker.running for worker in self._workers]
      ready, _ = ray.wait(refs, timeout=_POLL_SECONDS)
      for worker in [x for x in self._workers if x.running in ready]:
        self._finish(worker)
      if should_stop() and not self._is_stopping:
        self._is_stopping = True
        for worker in self._workers:
          worker.actor.stop.remote()
      self._poll()
      if not self._is_stopping:
        self._use_new_nodes()

  def _finish(self, worker):
    self._read_status(worker)
    left = self._collect(worker)
    if left and not self._is_stopping:
      # It was to give some of them up, and was slow to stop.
      return self._restart(worker, left)
    self._workers.remove(worker)
    ray.kill(worker.actor)

  def _collect(self, worker) -> list[Entry]:
    """Notes how a worker's streams ended; returns those that were stopped."""
    try:
      outcome: ray_actors.Status = ray.get(worker.running)
    except ray.exceptions.RayTaskError as error:
      if isinstance(error.cause, UserError):
        raise UserError(str(error.cause)) from None
      raise
    for words in outcome.news:
      self._show(words)
    self._ended |= {one.name: one for one in outcome.handles}
    self._num_frames += outcome.num_frames
    stopped = {one.name for one in outcome.handles if one.state == STOPPED}
    return [entry for entry in worker.entries if entry.name in stopped]

  def _poll(self):
    """Asks every worker for its status, and waits for none of them."""
    for worker in self._workers:
      if worker.status is None:
        worker.status = worker.actor.status.remote()
      elif ray.wait([worker.status], timeout=0)[0]:
        self._read_status(worker)
    self._counts = total(ray_actors.replica_counts(self._replicas))
    self._show()

  def _read_status(self, worker):
    """Reads a requested status, if it has come."""
    ref, worker.status = worker.status, None
    if ref is None:
      return
    with contextlib.suppress(ray.exceptions.RayError):
      status: ray_actors.Status = ray.get(ref, timeout=_POLL_SECONDS)
      for words in status.news:
        self._show(words)
      worker.handles = list(status.handles)

  def _show(self, news=""):
    handles = dict(self._ended)
    for worker in self._workers:
      known = {one.name: one for one in worker.handles}
      for entry in worker.entries:
        new = StreamHandle(entry.name, self._config)
        handles[entry.name] = known.get(entry.name, new)
    seconds = time.perf_counter() - self._began
    self._progress_fn(
      runner.Progress(list(handles.values()), self._counts, seconds, news)
    )

  def _use_new_nodes(self):
    """Moves streams to nodes that have joined; Ray handles lost ones."""
    now = _nodes()
    joined, self._nodes = now - self._nodes, now
    for node in sorted(joined):
      sizes = [len(worker.entries) for worker in self._workers]
      numbers = give_up(sizes, sum(sizes) // len(now))
      moved = []
      for worker, number in zip(list(self._workers), numbers, strict=True):
        if number:
          moved += self._take_from(worker, number)
      if moved:
        self._show(f"a node has joined: {len(moved)} streams go there")
        for part in deal(moved, self._per_node):
          self._workers.append(self._start(part, node))

  def _take_from(self, worker, number) -> list[Entry]:
    """Stops a worker, and restarts it without some of its streams."""
    worker.actor.stop.remote()
    ready, _ = ray.wait([worker.running], timeout=_STOP_SECONDS)
    if not ready:
      return []  # it stops later, and goes on with all
    left = self._collect(worker)
    kept = left[: max(len(left) - number, 0)]
    self._restart(worker, kept)
    return left[len(kept) :]

  def account(self) -> tuple[list[StreamHandle], summary.Account]:
    """All streams and their resources; call it after `close`."""
    handles = sorted(self._ended.values(), key=lambda one: one.name)
    seconds = time.perf_counter() - self._began
    return handles, summary.Account(
      *(seconds, self._num_frames, self._counts, *self._limited)
    )

  def close(self):
    """Ends every actor at once."""
    self._counts = total(ray_actors.replica_counts(self._replicas))
    if self._limiter is not None:
      with contextlib.suppress(ray.exceptions.RayError):
        self._limited = ray.get(self._limiter.counts.remote(), timeout=10)
    actors = [worker.actor for worker in self._workers] + self._replicas
    for actor in filter(None, [*actors, self._limiter]):
      with contextlib.suppress(Exception):
        ray.kill(actor)


def _nodes() -> set[str]:
  """Ids of the nodes that are alive and may work."""
  return {
    node["NodeID"]
    for node in ray.nodes()
    if node["Alive"] and node["Resources"].get("CPU", 0) > 0
  }
