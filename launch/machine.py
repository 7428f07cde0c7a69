"""What this machine has for runs, and what is left of it."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from launch.table import Need
from ojd.errors import UserError

_GB = 1e9
_MEMORY = pathlib.Path("/proc/meminfo")
_CGROUP = pathlib.Path("/sys/fs/cgroup")
_GPUS = pathlib.Path("/proc/driver/nvidia/gpus")


class Place(NamedTuple):
  """What one run has to itself."""

  cores: tuple[int, ...]
  gpus: tuple[str, ...]
  memory_gb: float


class Budget:
  """Cores, memory and GPUs that are handed out and given back."""

  def __init__(
    self, cores: Sequence[int], memory_gb: float, gpus: Sequence[str] = ()
  ):
    self._cores, self._gpus = sorted(cores), list(gpus)
    self._memory_gb = memory_gb

  def check(self, need: Need) -> None:
    """Refuses what will never be there, however long one waits."""
    has = Need(len(self._cores), self._memory_gb, len(self._gpus))
    wanted = (
      ("cores", need.cores, has.cores, "--cores"),
      ("GB of memory", need.memory_gb, has.memory_gb, "--memory_gb"),
      ("GPUs", need.gpus, has.gpus, "CUDA_VISIBLE_DEVICES"),
    )
    for what, asked, there, name in wanted:
      if asked > there:
        raise UserError(
          f"a run of this table takes {asked:g} {what}, and there are "
          f"{there:g} ({name}); change the table, or take a larger machine"
        )

  def take(self, need: Need) -> Place | None:
    """A place for a run; None where one must wait."""
    is_room = (
      len(self._cores) >= need.cores
      and len(self._gpus) >= need.gpus
      and self._memory_gb >= need.memory_gb
    )
    if not is_room:
      return None
    cores, self._cores = self._cores[: need.cores], self._cores[need.cores :]
    gpus, self._gpus = self._gpus[: need.gpus], self._gpus[need.gpus :]
    self._memory_gb -= need.memory_gb
    return Place(tuple(cores), tuple(gpus), need.memory_gb)

  def give_back(self, place: Place) -> None:
    """Makes room again."""
    self._cores = sorted([*self._cores, *place.cores])
    self._gpus = sorted([*self._gpus, *place.gpus])
    self._memory_gb += place.memory_gb


def budget(cores: int | None, memory_gb: float | None) -> Budget:
  """Of this machine: all that is there, or less where so much is given."""
  there = _cores()
  if cores is not None and not 1 <= cores <= len(there):
    raise UserError(f"--cores={cores}: from 1 to {len(there)} here")
  if memory_gb is not None and not memory_gb > 0:
    raise UserError(f"--memory_gb={memory_gb}: a number above 0")
  memory_gb = _memory_gb() if memory_gb is None else memory_gb
  return Budget(there[:cores], memory_gb, _gpus())


def _cores():
  if hasattr(os, "sched_getaffinity"):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def _memory_gb():
  """What processes may still take, of the machine or of their container."""
  try:
    found = re.search(r"MemAvailable:\s+(\d+) kB", _MEMORY.read_text())
    free = int(found[1]) * 1024
  except (OSError, TypeError):
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  try:
    most, now = (
      int((_CGROUP / f"memory.{name}").read_text())
      for name in ("max", "current")
    )
    free = min(free, most - now)
  except (OSError, ValueError):  # none, or without a limit: "max"
    pass
  return free / _GB


def _gpus():
  given = os.environ.get("CUDA_VISIBLE_DEVICES")
  if given is not None:
    return [name for name in given.split(",") if name]
  return [str(i) for i, _ in enumerate(_GPUS.glob("*"))]
