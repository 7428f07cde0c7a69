"""The text of a comparison's numbers, and the notes below its table."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ojd.compare.table import Cell, Entry, Table


class Marks(NamedTuple):
  """The signs of a kind of text."""

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
  names = ("region", "boundary")
  return ", ".join(percent(entry, name, marks) for name in names)


def steadiness(entry: Entry, marks: Marks = TEXT) -> str:
  """`91.2, 0.41 (93.0, 0.30)`: consistency and flicker, and of the truth."""
  consistency, flicker, truth, truth_flicker = (
    _with_deviation(entry, f"{prefix}{name}", 100, marks, digits)
    for prefix in ("", "truth_")
    for name, digits in (("consistency", 1), ("flicker", 2))
  )
  return f"{consistency}, {flicker} ({truth}, {truth_flicker})"


def over_the_link(entry: Entry, marks: Marks = TEXT) -> str:
  """`46.1, 245.0 (12.5, 25.0)`: Kbps up and down, staleness, frames/s."""
  if "up_kbps" not in entry.stats:
    return UNKNOWN
  up, down = (number(entry, name, marks) for name in ("up_kbps", "down_kbps"))
  stale, fps = (
    _fixed(entry.stats.get(name)) for name in ("mean_staleness", "link_fps")
  )
  return f"{up}, {down} ({stale}, {fps})"


def work(entry: Entry, marks: Marks = TEXT) -> str:
  """`0.512`: 1e9 multiply-accumulates of a frame's answer."""
  return _with_deviation(entry, _WORK, 1, marks, digits=3)


class Kind(NamedTuple):
  """One way to fill the table."""

  title: str
  write_fn: Callable[[Entry, Marks], str]  # of an entry that has numbers

  def write(self, entry: Entry, marks: Marks = TEXT) -> str:
    """The text of a cell of the table."""
    return self.write_fn(entry, marks) if entry.stats else FAILED


ACCURACY = Kind("mIoU (speed-up, key frames)", accuracy_and_cost)
DAVIS = Kind("DAVIS: J, F", regions_and_boundaries)
WORK = Kind("GMAC a frame, of the student's answers", work)
TEMPORAL = Kind("consistency, flicker (of the labels), %", steadiness)
LINK = Kind("Kbps up, down (frames of staleness, frames/s)", over_the_link)
# By the number that must be there for the table to be shown.
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
