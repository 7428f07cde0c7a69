"""Runs of a launch, and what any plan of them checks."""

import math
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from launch.table import Flags, Need
from ojd.errors import UserError

# The folder in the output that holds logs and registry of the launches.
REGISTRY = "launch"
MAX_RUNS = 10_000


class Run(NamedTuple):
  """One start of a binary."""

  name: str
  command: tuple[str, ...]  # what follows `python -m`
  folder: pathlib.Path  # that it fills


class Plan(NamedTuple):
  """All runs of a table, and what is done before and after them."""

  output: pathlib.Path
  runs: list[Run]
  need: Need  # of each
  # Makes the output ready, or refuses one that holds something else.
  prepare: Callable[[], None] = lambda: None
  last: tuple[str, ...] = ()  # a command that sums up what is finished


def word(name: str, value: Any) -> str:
  """A flag with its value."""
  if isinstance(value, bool):
    return f"--{'' if value else 'no'}{name}"
  return f"--{name}={value}"


def words_of(flags: Flags) -> list[str]:
  """Flags as words."""
  return [word(*item) for item in flags.items()]


def check_size(*sizes: int) -> None:
  """Refuses more runs than anyone means."""
  if math.prod(sizes) > MAX_RUNS:
    raise UserError(f"{math.prod(sizes)} runs; a launch has at most {MAX_RUNS}")


def check_names(runs: list[Run]) -> None:
  """Refuses two runs in one folder."""
  (name, count), *_ = Counter(run.name for run in runs).most_common(1)
  if count > 1:
    raise UserError(f"two runs would be called {name!r}")
  if any(run.name == REGISTRY for run in runs):
    raise UserError(f"{REGISTRY!r} is where the logs lie; no run has that name")
