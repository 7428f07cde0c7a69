"""Cells of a comparison as a table: streams down, systems across, averages."""

import statistics
from typing import NamedTuple

from ojd.compare.numbers import Numbers
from ojd.compare.spec import StreamEntry, SystemEntry

OVERALL = "Overall"


class Cell(NamedTuple):
  """One run of a comparison, and its results."""

  stream: StreamEntry
  system: SystemEntry
  seed: int
  folder: str  # of the run, in the results folder
  numbers: Numbers | None = None
  problem: str = ""  # why there are no numbers


class Stat(NamedTuple):
  """A number over the seeds."""

  mean: float
  deviation: float  # of the sample; 0 for one seed
  count: int


class Entry(NamedTuple):
  """A place of the table: one system on a stream, or on the average."""

  stats: dict[str, Stat]  # by the names of Numbers
  is_partial: bool  # something that should be in it failed


class Row(NamedTuple):
  """A row of the table."""

  title: str
  entries: list[Entry]  # by system


class Section(NamedTuple):
  """Rows that belong together."""

  title: str
  rows: list[Row]


class Table(NamedTuple):
  """As the paper's Tables 2 and 3."""

  systems: list[SystemEntry]
  overall: Row
  categories: list[Row]  # averages, in the order of their first streams
  sections: list[Section]  # the streams by category


def build(cells: list[Cell]) -> Table:
  """The table of all cells, whose order is that of rows and columns.

  An average is that of the streams, for each seed; then come mean and
  deviation over the seeds. It is over what is there.
  """
  systems = list(dict.fromkeys(cell.system for cell in cells))
  streams = list(dict.fromkeys(cell.stream for cell in cells))
  groups: dict[str, list[StreamEntry]] = {}
  for stream in streams:
    groups.setdefault(stream.category, []).append(stream)

  def row(title, members):
    chosen = [cell for cell in cells if cell.stream in members]
    columns = ([c for c in chosen if c.system == s] for s in systems)
    return Row(title, [_entry(column) for column in columns])

  return Table(
    systems,
    row(OVERALL, streams),
    [row(name, members) for name, members in groups.items() if name],
    [
      Section(name, [row(stream.name, [stream]) for stream in members])
      for name, members in groups.items()
    ],
  )


def _entry(cells):
  by_seed: dict[int, list[Numbers]] = {}
  for cell in cells:
    if cell.numbers is not None:
      by_seed.setdefault(cell.seed, []).append(cell.numbers)
  stats = {}
  for name in Numbers._fields:
    means = [
      statistics.fmean(known)
      for numbers in by_seed.values()
      if (known := [x for n in numbers if (x := getattr(n, name)) is not None])
    ]
    if means:
      deviation = statistics.stdev(means) if len(means) > 1 else 0.0
      stats[name] = Stat(statistics.fmean(means), deviation, len(means))
  return Entry(stats, any(cell.numbers is None for cell in cells))
