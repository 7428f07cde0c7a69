r"""Submits the runs of a table to Slurm, a job each.

    python -m launch.slurm table2 --partition=gpu --time=12:00:00
    python -m launch.slurm my/table.toml --output=/shared/runs --account=me

Each job runs the same command as launch.local, and keeps the same registry in
OUTPUT, a folder that all nodes see. A job that is preempted or out of time is
requeued and resumes. The same command submits what is missing and not in the
queue; if nothing is, it sums up like launch.local. It needs `pip install
'ojd[slurm]'`.
"""

import os
import pathlib
import shutil
import subprocess

from absl import flags

from experiments import cli
from launch import flags as launch_flags
from launch import jobs as jobs_lib
from ojd.errors import UserError

flags.adopt_module_key_flags(launch_flags)
_PARTITION = flags.DEFINE_string(
  "partition", "", "partition of the jobs; empty: the cluster's default"
)
_ACCOUNT = flags.DEFINE_string("account", "", "account that pays for the jobs")
_TIME = flags.DEFINE_string(
  "time",
  "24:00:00",
  "time limit of a job, after which it is requeued: [DAYS-]HH:MM:SS",
)
_AT_A_TIME = flags.DEFINE_integer(
  "at_a_time", 256, "the most jobs that run at a time"
)
_SBATCH = flags.DEFINE_list(
  "sbatch", [], "further options of sbatch: NAME=VALUE,..., as constraint=a100"
)
_PROGRAMS = ("srun", "sbatch", "squeue")


def main(words: list[str]) -> int:
  """Submits what is missing, or sums up."""
  work = launch_flags.read(words)
  if launch_flags.was_list_wanted(work):
    return 0
  num_all, num_missing = len(work.chosen), len(work.missing)
  so_far = f"{num_all - num_missing} of {num_all} runs are done"
  if not work.missing:
    print(so_far, flush=True)
    return launch_flags.sum_up(work)
  executor = _executor(work)
  with launch_flags.prepared(work):
    queued = _queued()
    new = [run for run in work.missing if work.registry.job(run) not in queued]
    names = jobs_lib.submit(executor, _jobs(new, work), work.registry)
  ends = " to ".join(dict.fromkeys([*names[:1], *names[-1:]]))
  print(
    f"{so_far}, {num_missing - len(new)} are in the queue, {len(new)} were "
    f"submitted{f' as {ends}' if names else ''}; logs: {work.registry.folder}"
  )
  return 0


def _jobs(runs, work):
  more = (work.plan.need.cores, os.getcwd(), launch_flags.GRACE.value)
  return {run: jobs_lib.Job(run, work.registry, *more) for run in runs}


def _executor(work):
  """What submits jobs as the flags say."""
  try:
    import submitit
  except ImportError:
    raise UserError(
      "launch.slurm needs submitit: pip install 'ojd[slurm]'"
    ) from None
  parameters = jobs_lib.parameters(
    work.plan.need,
    time_text=_TIME.value,
    at_a_time=_AT_A_TIME.value,
    grace=launch_flags.GRACE.value,
    partition=_PARTITION.value,
    account=_ACCOUNT.value,
    more=_SBATCH.value,
  )
  for name in _PROGRAMS:
    if shutil.which(name) is None:
      raise UserError(
        f"there is no {name} here: start this where Slurm is, or use "
        "launch.local"
      )
  executor = submitit.AutoExecutor(
    pathlib.Path.cwd() / work.registry.folder / "slurm",
    cluster="slurm",
    slurm_max_num_timeout=jobs_lib.MAX_REQUEUES,
  )
  executor.update_parameters(**parameters)
  return executor


def _queued():
  """The names of this person's jobs that wait or run."""
  command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    words = " ".join(done.stderr.split())
    raise RuntimeError(f"squeue does not answer: {words}")
  return set(done.stdout.split())


if __name__ == "__main__":
  cli.run(main, takes_words=True)
