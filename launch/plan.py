"""The runs that a table means: their names, folders and commands."""

import hashlib
import itertools
import re
from collections import Counter

from launch import table as tables
from launch.runs import Plan, Run, check_names, check_size, words_of
from launch.table import COMPARE, FOLDER_FLAGS, KeyProblem, Table
from ojd.errors import UserError
from ojd.run import workdir

_MAX_NAME, _MAX_VALUE = 120, 40  # letters
_HASH = 6


def make(table: Table, output: str = "") -> Plan:
  """Multiplies a table out; `output` replaces its own."""
  try:
    path = workdir.expand(output or table.output, "output")
    if table.binary == COMPARE:
      # What it needs to know of systems and streams takes seconds to load.
      from launch import comparison

      plan = comparison.plan(table, path)
    else:
      plan = _grid(table, path)
  except UserError as error:
    raise tables.located(table.path, table.text, error) from None
  return plan


def _grid(table, output):
  folder_flag = FOLDER_FLAGS[table.binary]
  _check_flags(table, folder_flag)
  seeds = [None] if table.repeats is None else range(table.repeats)
  check_size(*map(len, table.axes.values()), len(seeds))
  runs = []
  for *choices, seed in itertools.product(*table.axes.values(), seeds):
    flags = dict(table.flags)
    for choice in choices:
      flags |= choice.flags
    names = [choice.name for choice in choices]
    if seed is not None:
      flags["seed"] = seed
      names.append(f"seed={seed}")
    runs.append(
      _run(table.binary, names or ["run"], flags, output, folder_flag)
    )
  check_names(runs)
  last = ()
  if table.binary == "online_distill":
    last = ("experiments.report", str(output))
  return Plan(output, runs, table.need, last=last)


def _run(binary, names, flags, output, folder_flag):
  name = _slug("-".join(_slug(part, _MAX_VALUE) for part in names), _MAX_NAME)
  folder = output / name
  words = words_of({**flags, folder_flag: folder})
  command = (f"experiments.{binary}", *words)
  return Run(name, command, folder)


def _slug(text, most):
  """A name for files; what is lost of a text is in a few letters at the end."""
  plain = re.sub(r"[^A-Za-z0-9.=_-]+", "_", text).strip("._-")
  if plain == text and len(plain) <= most:
    return plain
  exact = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
  return f"{plain[: most - _HASH - 1]}-{exact}"


def _check_flags(table, folder_flag):
  """Refuses what is the launch's to say, and what is said by two axes."""
  axes = [
    {name for choice in choices for name in choice.flags}
    for choices in table.axes.values()
  ]
  counts = Counter(itertools.chain(*axes))
  keys = {name: ("grid", name) for name in counts}
  keys |= {name: ("flags", name) for name in table.flags}
  if folder_flag in keys:
    words = "every run has a folder of its own in the output"
    raise KeyProblem(keys[folder_flag], words)
  if table.repeats is not None and "seed" in keys:
    words = "that is what repeats says; leave out one of them"
    raise KeyProblem(keys["seed"], words)
  for name, count in counts.items():
    if count > 1:
      raise KeyProblem(("grid", name), "it is on two axes")


def select(runs: list[Run], parts: list[str]) -> list[Run]:
  """The runs in whose names one of the parts is; all where there is none."""
  chosen = [
    run for run in runs if not parts or any(part in run.name for part in parts)
  ]
  if not chosen:
    raise UserError(f"--only={','.join(parts)}: no run has that in its name")
  return chosen
