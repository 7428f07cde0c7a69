"""Runs as tasks of Ray."""

import contextlib
import os
import time
from collections.abc import Callable

import ray
from ray import exceptions as ray_exceptions

from launch.registry import Registry
from launch.runs import Run
from launch.supervised import Supervised
from launch.table import Need
from ojd.errors import UserError

_LOOK_SECONDS = 0.2
# Where a node dies, or a worker with it, the same command begins elsewhere.
_MAX_RETRIES = 10
_FAILED = 1
_GB = 10**9


def check(need: Need) -> None:
  """Refuses runs for which no node is large enough."""
  nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
  fits = lambda node: all(
    node.get(name, 0) >= amount for name, amount in _resources(need).items()
  )
  if not any(map(fits, nodes)):
    raise UserError(
      f"a run of this table takes {need.cores} cores, {need.memory_gb:g} GB of "
      f"memory and {need.gpus} GPUs, which no node of this Ray has"
    )


def _resources(need):
  return {"CPU": need.cores, "memory": need.memory_gb * _GB, "GPU": need.gpus}


class Task:
  """A run somewhere in the cluster, or on its way there."""

  def __init__(self, ref: ray.ObjectRef):
    self._ref = ref

  def poll(self) -> int | None:
    """The exit code, None while the run goes on."""
    ready, _ = ray.wait([self._ref], timeout=0)
    if not ready:
      return None
    try:
      return ray.get(self._ref)
    except ray_exceptions.RayError:
      return _FAILED

  def stop(self) -> None:
    """Asks the run to end, and does not wait for it."""
    ray.cancel(self._ref, force=False)

  def kill(self) -> None:
    """Lets its worker die, and the run with it."""
    with contextlib.suppress(ray_exceptions.RayError, ValueError):
      ray.cancel(self._ref, force=True)


def starter(
  registry: Registry, need: Need, grace: float
) -> Callable[[Run], Task]:
  """What submits a run; Ray finds the place for it."""
  remote = ray.remote(run_here).options(
    num_cpus=need.cores,
    num_gpus=need.gpus,
    memory=round(need.memory_gb * _GB),
    max_retries=_MAX_RETRIES,
  )
  folder = os.getcwd()
  return lambda run: Task(
    remote.remote(run, registry, need.cores, folder, grace)
  )


def run_here(
  run: Run, registry: Registry, cores: int, folder: str, grace: float
) -> int:
  """Runs a command in this worker's place; its exit code."""
  task = Supervised(run, registry, cores=cores, folder=folder, grace=grace)
  try:
    # Not wait(): a cancellation comes between two steps of Python.
    while (code := task.poll()) is None:
      time.sleep(_LOOK_SECONDS)
    return code
  finally:
    task.end()
