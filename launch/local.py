r"""Starts the runs of a table on this machine, as many at a time as fit.

    python -m launch.local smoke
    python -m launch.local my/table.toml --output=runs/mine --cores=8
    python -m launch.local table2 --list

Every run has cores of its own, a log in OUTPUT/launch, and a process that
supervises it. A run that fails is reported, the others go on, and the exit code
is 1. The same command runs what is missing; if nothing is, it sums up. Ctrl-C
ends all runs, which then resume from their files. The first command takes about
a minute on two cores and prints a table of two streams by three systems, in
which `jit a_thresh=0.9` is about six points above `jit a_thresh=0.6`.
"""

from absl import flags

from experiments import cli
from launch import drive, machine
from launch import flags as launch_flags
from launch.supervised import Supervised

flags.adopt_module_key_flags(launch_flags)
_CORES = flags.DEFINE_integer(
  "cores", None, "cores of this machine for all runs together; empty: all"
)
_MEMORY = flags.DEFINE_float(
  "memory_gb",
  None,
  "memory for all runs together; empty: what is available now",
)


def main(words: list[str]) -> int:
  """Runs what is missing and sums up."""
  work = launch_flags.read(words)
  if launch_flags.was_list_wanted(work):
    return 0
  budget = machine.budget(_CORES.value, _MEMORY.value)
  budget.check(work.plan.need)
  with launch_flags.prepared(work):
    ended, interrupt = launch_flags.run(
      work, lambda run: start(run, work, budget)
    )
  return launch_flags.conclude(work, ended, interrupt)


class _Placed:
  """A run in its place, which is given back when it ends."""

  def __init__(self, task, place, budget):
    self._task, self._place, self._budget = task, place, budget
    self.stop, self.kill = task.stop, task.kill

  def poll(self):
    code = self._task.poll()
    if code is not None and self._place:
      self._budget.give_back(self._place)
      self._place = None
    return code


def start(run, work, budget) -> drive.Task | None:
  """Starts a run where there is room for it."""
  place = budget.take(work.plan.need)
  if place is None:
    return None
  # A run that asks for none sees what there is, as it would alone.
  gpus = {"CUDA_VISIBLE_DEVICES": ",".join(place.gpus)} if place.gpus else {}
  task = Supervised(
    run,
    work.registry,
    cores=place.cores,
    environment=gpus,
    grace=launch_flags.GRACE.value,
  )
  return _Placed(task, place, budget)


if __name__ == "__main__":
  cli.run(main, takes_words=True)
