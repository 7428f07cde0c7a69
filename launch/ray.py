r"""Starts the runs of a table on a Ray cluster.

    python -m launch.ray table2 --address=auto --output=/shared/runs
    python -m launch.ray smoke --address=local

A run is a task that requests its cores, memory and GPUs, runs the same command
as launch.local, and keeps the same registry in OUTPUT, a folder that all nodes
see. A run whose node dies starts elsewhere and resumes from its files. Ctrl-C
ends all runs; the same command runs what is missing. The second command starts
a Ray of its own on this machine. It needs `pip install 'ojd[ray]'`.
"""

from absl import flags

from experiments import cli
from launch import flags as launch_flags
from ojd.fleet import ray as cluster

flags.adopt_module_key_flags(launch_flags)
_ADDRESS = flags.DEFINE_string(
  "address", "auto", "the cluster: auto, HOST:PORT, or local for a new one"
)


def main(words: list[str]) -> int:
  """Runs what is missing and sums up."""
  work = launch_flags.read(words)
  if launch_flags.was_list_wanted(work):
    return 0
  start = _connected(work) if work.missing else None
  with launch_flags.prepared(work):
    ended, interrupt = launch_flags.run(work, start)
  return launch_flags.conclude(work, ended, interrupt)


def _connected(work):
  """What starts a run on the cluster."""
  cluster.connect(_ADDRESS.value, "address")
  # Not before: it needs what `connect` has looked for.
  from launch import ray_tasks

  ray_tasks.check(work.plan.need)
  return ray_tasks.starter(
    work.registry, work.plan.need, launch_flags.GRACE.value
  )


if __name__ == "__main__":
  cli.run(main, takes_words=True)
