"""Runs as jobs of Slurm, by submitit."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from launch import registry as registry_lib
from launch.registry import Registry
from launch.runs import Run
from launch.supervised import Supervised
from launch.table import Need
from ojd.errors import UserError

MAX_REQUEUES = 1000  # for want of time; others are not counted
_MAX_ARRAY = 1000  # jobs in an array, Slurm's default
# Beside the time that a run has to end, for the job to be put back.
_REQUEUE_SECONDS = 60
_LOOK_SECONDS = 1.0
# From Slurm's SIGTERM to its SIGKILL, at most.
_PREEMPTION_SECONDS = 600.0
_TERMINATED = 128 + 15


class Job:
  """A run as a job; submitit keeps it, and calls it on the node."""

  def __init__(
    self, run: Run, registry: Registry, cores: int, folder: str, grace: float
  ):
    """Takes what Supervised does."""
    self._run, self._registry, self._cores = run, registry, cores
    self._folder, self._grace = folder, grace
    self._task: Supervised | None = None

  def __call__(self) -> None:
    """Runs the command to its end; raises where that was none."""
    task = self._task = Supervised(
      self._run,
      self._registry,
      cores=self._cores,
      folder=self._folder,
      grace=self._grace,
    )
    # Not wait(): a signal would find it with the process locked.
    while (code := task.poll()) is None:
      time.sleep(_LOOK_SECONDS)
    if code == _TERMINATED:
      # Slurm asked all processes to end. Whether the job comes back is Slurm's
      # to say, but not if it is over before that.
      time.sleep(_PREEMPTION_SECONDS)
    if code:
      words = registry_lib.last_line(self._registry.log(self._run))
      raise RuntimeError(f"code {code}: {words}")

  def checkpoint(self) -> Any:
    """Ends the run, and has the same command submitted again."""
    import submitit

    if self._task is not None:
      self._task.end()
    return submitit.helpers.DelayedSubmission(self)

  def __getstate__(self):
    return {**self.__dict__, "_task": None}


def submit(
  executor: Any, jobs: Mapping[Run, Job], registry: Registry
) -> list[str]:
  """Submits jobs by an executor of submitit; their names."""
  runs, names = list(jobs), []
  for first in range(0, len(runs), _MAX_ARRAY):
    some = runs[first : first + _MAX_ARRAY]
    with executor.batch():
      submitted = [executor.submit(jobs[run]) for run in some]
    for run, job in zip(some, submitted, strict=True):
      registry.write_job(run, job.job_id)
      names.append(job.job_id)
  return names


def parameters(
  need: Need,
  *,
  time_text: str,
  at_a_time: int,
  grace: float,
  partition: str = "",
  account: str = "",
  more: Sequence[str] = (),
) -> dict[str, Any]:
  """What a job asks Slurm for, as submitit takes it."""
  if at_a_time < 1:
    raise UserError(f"--at_a_time={at_a_time}: at least 1")
  given = {
    "slurm_partition": partition,
    "slurm_account": account,
    "gpus_per_node": need.gpus,
    "slurm_additional_parameters": _named(more),
  }
  return {
    "name": "ojd",
    "timeout_min": minutes(time_text),
    "cpus_per_task": need.cores,
    "mem_gb": need.memory_gb,
    "slurm_array_parallelism": at_a_time,
    "slurm_signal_delay_s": round(grace) + _REQUEUE_SECONDS,
    "stderr_to_stdout": True,
    **{name: value for name, value in given.items() if value},
  }


def minutes(text: str) -> int:
  """Minutes of [DAYS-]HH:MM:SS, rounded up."""
  match = re.fullmatch(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]\d):([0-5]\d)", text)
  days, hours, rest, seconds = map(int, match.groups("0") if match else [0] * 4)
  total = (days * 24 + hours) * 60 + rest + (seconds > 0)
  if not total:
    raise UserError(f"--time={text}: [DAYS-]HH:MM:SS is meant, as 12:00:00")
  return total


def _named(entries):
  more = {}
  for entry in entries:
    name, equals, value = entry.partition("=")
    if not equals or not re.fullmatch(r"[a-z][a-z-]*", name):
      raise UserError(f"--sbatch={entry}: NAME=VALUE,... is meant")
    more[name] = value
  return more
