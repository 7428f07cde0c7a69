"""A launch of `tests.busy` on a Ray of its own: OUTPUT WHAT...; for tests."""

import pathlib
import sys

from experiments import cli
from launch import drive
from launch import registry as registry_lib
from launch.runs import Run
from launch.table import Need
from ojd.errors import UserError
from ojd.fleet import ray as cluster

_NEED = Need(cores=1, memory_gb=0.1)


def main() -> int:
  """Runs each WHAT on a core of two, and says what comes of them."""
  output = pathlib.Path(sys.argv[1])
  cluster.connect(cluster.LOCAL, num_cpus=2)
  from launch import ray_tasks  # which imports ray

  for need in (_NEED, Need(cores=3), Need(memory_gb=1e5), Need(gpus=64)):
    try:
      ray_tasks.check(need)
    except UserError as error:
      print("refused:", error, flush=True)
  registry, interrupt = registry_lib.in_output(output), cli.Interrupt()
  ended = drive.drive(
    [_run(output / f"r{i}", what) for i, what in enumerate(sys.argv[2:])],
    0,
    registry,
    ray_tasks.starter(registry, _NEED, 5.0),
    watch=lambda progress: print(progress.news, flush=True),
    should_stop=interrupt.is_wanted,
  )
  print(ended, flush=True)
  return interrupt.exit_code()


def _run(folder, what):
  command = ("tests.busy", str(folder), *what.split())
  return Run(folder.name, command, folder)


if __name__ == "__main__":
  sys.exit(main())
