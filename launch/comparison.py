"""The cells of a comparison as runs of a launch.

They are what `experiments.compare` would make, in the folders in which it looks
for them: it then has nothing to do but to print its tables.
"""

import itertools
import pathlib
import typing

import msgspec

from launch.runs import Plan, Run, check_names, check_size, word, words_of
from launch.table import KeyProblem, Table
from ojd.compare import folder as folders
from ojd.compare import spec
from ojd.errors import UserError
from ojd.run import config as config_lib
from ojd.run.config import RunConfig

# What the comparison says for each cell, and what it says otherwise.
_NOT_FLAGS = {
  **{"stream": "[comparison] streams", "system": "[comparison] systems"},
  **{"seed": "repeats", "workdir": "output"},
}
_KINDS = typing.get_type_hints(RunConfig)


def plan(table: Table, output: pathlib.Path) -> Plan:
  """Every stream with every system and seed, and then the tables of them."""
  flags = {"overlay": False, **_shared(table.flags)}
  # A comma in a list of the table is part of what it lists.
  escaped = lambda texts: [text.replace(",", r"\,") for text in texts]
  streams, systems = escaped(table.streams), escaped(table.systems)
  seeds = range(table.repeats or 1)
  check_size(len(streams), len(systems), len(seeds))
  parsed = spec.parse_streams(streams), spec.parse_systems(",".join(systems))
  cells = itertools.product(*parsed, seeds)
  config = RunConfig(**flags)
  runs = [_cell(config, *cell, flags, output) for cell in cells]
  check_names(runs)
  settings = folders.settings(config, davis_measures=False)

  def prepare():
    if not folders.inspect(output, settings):
      spec.check_used(config, parsed[0][0], parsed[1])
    try:
      output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(f"--output={output}: {error.strerror}") from None
    folders.create(output, settings)

  last = (
    *("experiments.compare", word("output", output)),
    *(word("streams", stream) for stream in streams),
    *(word("systems", ",".join(systems)), word("repeat", len(seeds))),
    *words_of(flags),
  )
  return Plan(output, runs, table.need, prepare, last)


def _shared(flags):
  """The flags of all cells, as the types that they are of."""
  shared = {}
  for name, value in flags.items():
    keys = ("flags", name)
    if name in _NOT_FLAGS:
      raise KeyProblem(keys, f"it is {_NOT_FLAGS[name]} here")
    if name not in _KINDS:
      raise KeyProblem(keys, "this is no flag of online_distill")
    kind = (typing.get_args(_KINDS[name]) or (_KINDS[name],))[0]
    try:
      shared[name] = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
      raise KeyProblem(keys, str(error)) from None
  return shared


def _cell(config, stream, system, seed, flags, output):
  folder = output / folders.cell(stream, system, seed)
  try:
    config = spec.config_of(config, stream, system, seed, folder)
    config_lib.check(config)
  except UserError as error:
    raise UserError(f"{system.label}: {error}") from None
  # Shared flags that the system does not use are None in its config.
  given = {**flags, **system.flags}
  every = {n: x for n, x in given.items() if getattr(config, n) is not None}
  every |= {"stream": stream.uri, "system": system.flag, "seed": seed}
  every |= {"workdir": folder}
  command = ("experiments.online_distill", *words_of(every))
  return Run(folder.name, command, folder)
