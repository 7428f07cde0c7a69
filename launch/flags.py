"""What the launchers have in common: their flags, and the way to their runs."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from absl import flags

from experiments import cli
from launch import checking, display, drive, plan, supervised, table
from launch import registry as registry_lib
from launch.drive import Ended
from launch.registry import Registry
from launch.runs import Plan, Run
from ojd.errors import UserError

_OUTPUT = flags.DEFINE_string(
  "output", "", "the folder of all runs; empty: the table's own"
)
_ONLY = flags.DEFINE_list(
  "only", [], "run only those whose names contain one of these parts"
)
_LIST = flags.DEFINE_bool("list", False, "show what is done, and start nothing")
GRACE = flags.DEFINE_float(
  "grace",
  supervised.GRACE_SECONDS,
  "seconds that a run has to end by itself after an interrupt",
)
_MAX_GRACE = 3600.0


class Work(NamedTuple):
  """What there is to do."""

  plan: Plan
  chosen: list[Run]
  missing: list[Run]  # of these
  registry: Registry


def read(words: list[str]) -> Work:
  """What the words and the flags ask for."""
  if len(words) != 1:
    raise UserError(
      f"name one table, not {len(words)}: a file, or one of "
      + ", ".join(table.bundled())
    )
  if not 0 <= GRACE.value <= _MAX_GRACE:
    raise UserError(f"--grace={GRACE.value}: from 0 to {_MAX_GRACE:g} s")
  made = plan.make(table.read(table.find(words[0])), _OUTPUT.value)
  chosen = plan.select(made.runs, _ONLY.value)
  registry = registry_lib.in_output(made.output)
  missing = [run for run in chosen if not registry.is_done(run)]
  return Work(made, chosen, missing, registry)


def was_list_wanted(work: Work) -> bool:
  """Prints the runs where that is all that was asked for."""
  if not _LIST.value:
    return False
  missing = set(work.missing)
  for run in work.chosen:
    state = "missing" if run in missing else "done"
    print(f"{state}  {run.name}  {' '.join(run.command)}")
  return True


@contextlib.contextmanager
def prepared(work: Work) -> Iterator[None]:
  """Checks all commands, makes the output, and keeps other launchers out."""
  checking.check(work.missing)
  work.plan.prepare()
  with registry_lib.claim(work.registry):
    yield


def run(
  work: Work, start: Callable[[Run], drive.Task]
) -> tuple[Ended, cli.Interrupt]:
  """Starts what is missing, and shows it; how it ended, and who ended it."""
  # Not sooner: Ray replaces the handler of SIGTERM.
  interrupt, watcher = cli.Interrupt(), display.watcher()
  try:
    ended = drive.drive(
      work.missing,
      len(work.chosen) - len(work.missing),
      work.registry,
      start,
      watch=watcher,
      should_stop=interrupt.is_wanted,
    )
  finally:
    watcher.close()
  return ended, interrupt


def conclude(work: Work, ended: Ended, interrupt: cli.Interrupt) -> int:
  """Reports the results, sums up if all are done; returns the exit code."""
  for line in ended.failed:
    print(f"failed: {line}", file=sys.stderr)
  if interrupt.is_wanted() or ended.num_left:
    print("stopped; the same command resumes", file=sys.stderr)
    return interrupt.exit_code() or cli.FAILURE
  print(f"{ended.num_done} of {len(work.chosen)} runs are done", flush=True)
  if ended.failed:
    return cli.FAILURE
  return sum_up(work)


def sum_up(work: Work) -> int:
  """Runs the last command where every run of the table is done."""
  if not work.plan.last or not all(map(work.registry.is_done, work.plan.runs)):
    return 0
  # It ends with Ctrl-C as this process does: both are before the terminal.
  return subprocess.call([sys.executable, "-m", *work.plan.last])
