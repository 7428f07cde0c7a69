"""Cells of a comparison as a table: streams down, systems across, averages."""

import math
import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ojd.compare.numbers import Numbers
from ojd.compare.spec import StreamEntry, SystemEntry

OVERALL = "Overall"


class Cell(NamedTuple):
  """One run of a comparison, and what came of it."""

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


class Marks(NamedTuple):
  """How a kind of text writes what plain letters lack."""

  times: str
  plus_minus: str
  percent: str


TEXT = Marks("x", "+-", "%")
HTML = Marks("\u00d7", "\u00b1", "%")
LATEX = Marks(r"$\times$", r"$\pm$", r"\%")

_WORK = "gmac_per_frame"
FAILED, UNKNOWN, PARTIAL = "failed", "-", "*"


def accuracy_and_cost(entry: Entry, marks: Marks = TEXT) -> str:
  """`84.5 (23.5x, 1.7%)`: mIoU, speed-up of the paper's model, key frames."""
  if not entry.stats:
    return FAILED
  speedup = entry.stats.get("speedup_paper_model")
  fraction = entry.stats.get("key_frame_fraction")
  cost = (
    _fixed(speedup) + (marks.times if speedup else ""),
    _fixed(fraction, 100) + (marks.percent if fraction else ""),
  )
  return f"{percent(entry, 'miou', marks)} ({', '.join(cost)})"


def percent(entry: Entry, name: str, marks: Marks = TEXT) -> str:
  """A share in percent without the sign, with its deviation over seeds."""
  return _with_deviation(entry, name, 100, marks)


def number(entry: Entry, name: str, marks: Marks = TEXT) -> str:
  """Any other number likewise."""
  return _with_deviation(entry, name, 1, marks)


def count(entry: Entry, name: str, marks: Marks = TEXT) -> str:
  """A large number likewise, rounded to a whole one."""
  return _with_deviation(entry, name, 1, marks, digits=0)


def _with_deviation(entry, name, factor, marks, digits=1):
  if not entry.stats:
    return FAILED
  stat = entry.stats.get(name)
  words = _fixed(stat, factor, digits)
  if stat and stat.count > 1:
    words += f"{marks.plus_minus}{factor * stat.deviation:,.{digits}f}"
  return words + (PARTIAL if entry.is_partial else "")


def _fixed(stat, factor=1.0, digits=1):
  return f"{factor * stat.mean:,.{digits}f}" if stat else UNKNOWN


def regions_and_boundaries(entry: Entry, marks: Marks = TEXT) -> str:
  """`71.0, 68.2`: J and F of DAVIS, in percent."""
  if not entry.stats:
    return FAILED
  names = ("region", "boundary")
  return ", ".join(percent(entry, name, marks) for name in names)


def steadiness(entry: Entry, marks: Marks = TEXT) -> str:
  """`91.2, 0.41 (93.0, 0.30)`: consistency and flicker, and of the truth."""
  if not entry.stats:
    return FAILED
  consistency, flicker, truth, truth_flicker = (
    _with_deviation(entry, f"{prefix}{name}", 100, marks, digits)
    for prefix in ("", "truth_")
    for name, digits in (("consistency", 1), ("flicker", 2))
  )
  return f"{consistency}, {flicker} ({truth}, {truth_flicker})"


def over_the_link(entry: Entry, marks: Marks = TEXT) -> str:
  """`46.1, 245.0 (12.5, 25.0)`: Kbps up and down, staleness, frames/s."""
  if not entry.stats:
    return FAILED
  if "up_kbps" not in entry.stats:
    return UNKNOWN
  up, down = (number(entry, name, marks) for name in ("up_kbps", "down_kbps"))
  stale, fps = (
    _fixed(entry.stats.get(name)) for name in ("mean_staleness", "link_fps")
  )
  return f"{up}, {down} ({stale}, {fps})"


def work(entry: Entry, marks: Marks = TEXT) -> str:
  """`0.512`: 1e9 multiply-accumulates of a frame's answer."""
  if not entry.stats:
    return FAILED
  return _with_deviation(entry, _WORK, 1, marks, digits=3)


class Kind(NamedTuple):
  """One way to fill the table."""

  title: str
  write: Callable[[Entry, Marks], str]


ACCURACY = Kind("mIoU (speed-up, key frames)", accuracy_and_cost)
DAVIS = Kind("DAVIS: J, F", regions_and_boundaries)
WORK = Kind("GMAC a frame, of the student's answers", work)
TEMPORAL = Kind("consistency, flicker (of the labels), %", steadiness)
LINK = Kind("Kbps up, down (frames of staleness, frames/s)", over_the_link)
# By a number that tells that there is something to be shown.
_MORE = {
  "region": DAVIS,
  "consistency": TEMPORAL,
  "up_kbps": LINK,
}


def kinds(table: Table) -> list[Kind]:
  """What there is to be shown."""
  entries = table.overall.entries
  known = {name for e in entries for name in e.stats}
  more = (kind for name, kind in _MORE.items() if name in known)
  return [ACCURACY, *[WORK] * differs_in_work(table), *more]


def differs_in_work(table: Table) -> bool:
  """Whether work says anything: not where it is the same for all."""
  entries = [e.stats for e in table.overall.entries if _WORK in e.stats]
  return len({round(stats[_WORK].mean, 6) for stats in entries}) > 1


def notes(cells: Iterable[Cell], num_jobs: int) -> list[str]:
  """What a reader of the table should know."""
  cells = list(cells)
  num_seeds = len({cell.seed for cell in cells})
  found = [
    "mIoU in percent (speed-up over the teacher on every frame by the paper's "
    "cost model, frames that the teacher was asked about)"
  ]
  if num_seeds > 1:
    found.append(
      f"mean and standard deviation of the sample over {num_seeds} seeds"
    )
  if any(cell.numbers is None for cell in cells):
    found.append(f"{PARTIAL} what failed is left out of the average")
  if num_jobs > 1:
    found.append(
      f"{num_jobs} runs at a time: frames a second and measured speed-ups are "
      "lower than those of a run alone"
    )
  return found + _short_streams(cells)


def _short_streams(cells):
  """Streams over before a second key frame, on which nothing is compared."""
  found: dict[str, list[str]] = {}
  for cell in cells:
    numbers = cell.numbers
    if numbers is not None and numbers.num_key_frames == 1:
      labels = found.setdefault(cell.stream.name, [])
      if cell.system.label not in labels:
        labels.append(cell.system.label)
  frames = {c.stream.name: c.numbers.num_frames for c in cells if c.numbers}
  return [
    f"{name} has {_count(frames[name])}, fewer than the first stride of "
    f"{', '.join(labels)}: the teacher was asked about the first alone"
    for name, labels in found.items()
  ]


def _count(x):
  return f"{x:.0f} frames" if x is not None and math.isfinite(x) else "frames"


def failures(cells: Iterable[Cell]) -> list[str]:
  """A line for each cell that failed."""
  return [
    f"{cell.stream.name}, {cell.system.label}, seed {cell.seed}: {cell.problem}"
    for cell in cells
    if cell.numbers is None
  ]


# What a table of gradient steps shows: title, name of the number, how.
UPDATES = (
  ("mIoU", "miou", percent),
  ("key frames, %", "key_frame_fraction", percent),
  ("updates", "num_updates", number),
  ("bytes changed per key frame", "bytes_per_key", count),
  ("ms an update", "ms_update", number),
)
