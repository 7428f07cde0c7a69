"""Shows a run: a live line on a terminal, plain lines in a log."""

import sys
import time
from typing import Any

from rich import console as rich_console
from rich import progress as rich_progress

from ojd.comparison import compare
from ojd.run.stats import Progress

_LOG_SECONDS = 5.0


def describe(progress: Progress) -> str:
  """Frames a second, stride, key frames, updates and mIoU in a line."""
  miou = "-" if progress.miou is None else f"{progress.miou:.3f}"
  return (
    f"{progress.fps:.1f} fps  stride {progress.stride}  "
    f"{progress.num_keys} key frames  {progress.num_updates} updates  "
    f"mIoU {miou}"
  )


def in_words(summary: dict[str, Any]) -> str:
  """A run's summary in three lines."""
  miou = summary["miou"]
  classes = ", ".join(
    f"{name} {iou:.3f}"
    for name, iou in miou["per_class"].items()
    if iou is not None
  )
  mean = "not measured" if miou["mean"] is None else f"{miou['mean']:.3f}"
  measured = summary["speedup_measured"]
  against = (
    "a free teacher has none to measure"
    if measured is None
    else f"{measured:.2f} measured"
  )
  state = "done" if summary["finished"] else "stopped"
  skipped, delay = summary["num_skipped"], summary.get("mean_delay_frames")
  return (
    f"{state}: {summary['num_frames']} frames"
    + (f" ({skipped} unreadable skipped)" if skipped else "")
    + f", {summary['num_key_frames']} key frames "
    f"({summary['key_frame_fraction']:.1%}), "
    f"{summary['num_updates']} updates"
    + ("" if delay is None else f", labels {delay:.1f} frames late")
    + "\n"
    f"mIoU against the {miou['reference']}: {mean}"
    + (f" ({classes})" if classes else "")
    + f"\n{summary['fps']:.1f} frames/s; speed-up over the teacher: "
    f"{summary['speedup_paper_model']:.2f} by the paper's cost model, {against}"
  )


class Log:
  """A line every few seconds, and one for each problem; for files."""

  def __init__(self, clock=time.monotonic, write=None):
    self._clock = clock
    self._write = write or (lambda line: print(line, file=sys.stderr))
    self._last = clock()
    self._first: tuple[float, int] | None = None  # when, and how many frames

  def __call__(self, progress: Progress) -> None:
    if progress.problem:
      self._write(f"warning: {progress.problem}")
    now = self._clock()
    # The first frame had to wait for compilation: it says nothing of the rest.
    self._first = self._first or (now, progress.num_frames)
    is_last = progress.num_frames == progress.total
    if now - self._last < _LOG_SECONDS and not is_last:
      return
    self._last = now
    done, total = progress.num_frames, progress.total
    line = f"frame {done}{f'/{total}' if total else ''}  {describe(progress)}"
    since, before = self._first
    if total and done > before:
      eta = (now - since) / (done - before) * (total - done)
      line += f"  ETA {eta:.0f} s"
    self._write(line)

  def close(self) -> None:
    """Nothing is left open."""


class Bar:
  """A bar with an ETA, for terminals."""

  def __init__(self):
    self._progress = rich_progress.Progress(
      rich_progress.BarColumn(bar_width=10),
      rich_progress.MofNCompleteColumn(),
      rich_progress.TextColumn("{task.description}"),
      rich_progress.TextColumn("ETA"),
      rich_progress.TimeRemainingColumn(compact=True),
      console=rich_console.Console(stderr=True),
    )
    self._task = self._progress.add_task("starting", total=None)
    self._progress.start()

  def __call__(self, progress: Progress) -> None:
    if progress.problem:
      self._progress.console.print(f"warning: {progress.problem}", markup=False)
    self._progress.update(
      self._task,
      completed=progress.num_frames,
      total=progress.total,
      description=describe(progress),
    )

  def close(self) -> None:
    """Leaves the last state on the screen."""
    self._progress.stop()


def watcher() -> Log | Bar:
  """What fits where standard error goes."""
  return Bar() if sys.stderr.isatty() else Log()


class Counter:
  """A line every few seconds for work that counts steps."""

  def __init__(self, name: str, total: int, clock=time.monotonic, write=None):
    self._name, self._total, self._clock = name, total, clock
    self._write = write or (lambda line: print(line, file=sys.stderr))
    self._last = clock()
    self._first: tuple[float, int] | None = None  # when, and the step

  def __call__(self, step: int, words: str) -> None:
    now = self._clock()
    self._first = self._first or (now, step)
    if now - self._last < _LOG_SECONDS and step != self._total:
      return
    self._last = now
    since, before = self._first
    eta = (now - since) / max(step - before, 1) * (self._total - step)
    self._write(f"{self._name} {step}/{self._total}  {words}  ETA {eta:.0f} s")


class CellLog:
  """A line for each run of a comparison that ends, and one now and then."""

  def __init__(self, clock=time.monotonic, write=None):
    self._clock = clock
    self._write = write or (lambda line: print(line, file=sys.stderr))
    self._last = clock()
    self._first: tuple[float, int] | None = None  # when, and how many frames

  def __call__(self, progress: compare.Progress) -> None:
    now, done, total = self._clock(), progress.num_frames, progress.total
    self._first = self._first or (now, done)
    if not progress.news and now - self._last < _LOG_SECONDS:
      return
    self._last = now
    line = f"run {progress.num_cells}/{progress.num_all}  "
    line += f"frame {done}{f'/{total}' if total else ''}"
    since, before = self._first
    if total and done > before:
      eta = (now - since) / (done - before) * (total - done)
      line += f"  ETA {eta:.0f} s"
    self._write(line + (f"  {progress.news}" if progress.news else ""))

  def close(self) -> None:
    """Nothing is left open."""


class CellBar:
  """A bar over the frames of a comparison, for terminals."""

  def __init__(self):
    self._progress = rich_progress.Progress(
      rich_progress.BarColumn(bar_width=20),
      rich_progress.TextColumn("{task.description}"),
      rich_progress.TextColumn("ETA"),
      rich_progress.TimeRemainingColumn(compact=True),
      console=rich_console.Console(stderr=True),
    )
    self._task = self._progress.add_task("looking at the streams", total=None)
    self._progress.start()

  def __call__(self, progress: compare.Progress) -> None:
    if progress.news:
      self._progress.console.print(progress.news, markup=False)
    self._progress.update(
      self._task,
      completed=progress.num_frames,
      total=progress.total,
      description=f"run {progress.num_cells}/{progress.num_all}",
    )

  def close(self) -> None:
    """Leaves the last state on the screen."""
    self._progress.stop()


def comparison_watcher() -> CellLog | CellBar:
  """What fits where standard error goes."""
  return CellBar() if sys.stderr.isatty() else CellLog()
