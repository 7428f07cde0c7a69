"""Shows how far some work is: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rich import console as rich_console
from rich import progress as rich_progress

from experiments import cli
from ojd.run.stats import Progress

_LOG_SECONDS = 5.0


class View(NamedTuple):
  """What is shown of the progress of some kind of work."""

  count: Callable[[Any], tuple[int, int | None]]  # what is done, and the total
  text: Callable[[Any], str]
  news: Callable[[Any], str] = lambda progress: ""  # shown at once; often empty
  unit: str = "frame"


class Log:
  """A line every few seconds and at the end, and one for news; for files."""

  def __init__(self, view: View, clock=time.monotonic, write=None):
    self._view, self._clock = view, clock
    self._write = write or (lambda line: print(line, file=sys.stderr))
    self._last = clock()
    self._first: tuple[float, int] | None = None  # when, and what was done
    self._is_over = False

  def __call__(self, progress: Any) -> None:
    if news := self._view.news(progress):
      self._write(news)
    now, (done, total) = self._clock(), self._view.count(progress)
    # The first frame had to wait for compilation: it says nothing of the rest.
    self._first = self._first or (now, done)
    is_over = bool(total) and done == total
    if now - self._last < _LOG_SECONDS and (self._is_over or not is_over):
      return
    self._last, self._is_over = now, is_over
    of_total = f"/{total}" if total else ""
    line = f"{self._view.unit} {done}{of_total}  {self._view.text(progress)}"
    since, before = self._first
    if total and done > before:
      eta = (now - since) / (done - before) * (total - done)
      line += f"  ETA {eta:.0f} s"
    self._write(line)

  def close(self) -> None:
    """Nothing is left open."""


class Bar:
  """A bar with an ETA, for terminals."""

  def __init__(self, view: View):
    self._view = view
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

  def __call__(self, progress: Any) -> None:
    if news := self._view.news(progress):
      self._progress.console.print(news, markup=False)
    done, total = self._view.count(progress)
    self._progress.update(
      self._task,
      completed=done,
      total=total,
      description=self._view.text(progress),
    )

  def close(self) -> None:
    """Leaves the last state on the screen."""
    self._progress.stop()


def describe(progress: Progress) -> str:
  """Frames a second, stride, key frames, updates and mIoU in a line."""
  miou = "-" if progress.miou is None else f"{progress.miou:.3f}"
  return (
    f"{progress.fps:.1f} fps  stride {progress.stride}  "
    f"{progress.num_keys} key frames  {progress.num_updates} updates  "
    f"mIoU {miou}"
  )


RUN = View(
  count=lambda progress: (progress.num_frames, progress.total),
  text=describe,
  news=lambda progress: progress.problem and f"warning: {progress.problem}",
)


def watcher(view: View = RUN) -> Log | Bar:
  """A bar on a terminal, a log elsewhere."""
  return Bar(view) if sys.stderr.isatty() else Log(view)


def counter(unit: str, total: int) -> Callable[[int, str], None]:
  """A log of work that counts steps; called with the step and a text."""
  log = Log(View(lambda p: (p[0], total), lambda p: p[1], unit=unit))
  return lambda step, text: log((step, text))


def follow(run: Callable[..., Any]) -> tuple[Any, int]:
  """Shows a run while it goes on, and ends it where the user wants that.

  Args:
    run: takes progress_fn, should_stop and note_fn, as `runner.run` does.

  Returns:
    What it returns, and the exit code.
  """
  interrupt, shown = cli.Interrupt(), watcher()
  try:
    outcome = run(
      progress_fn=shown, should_stop=interrupt.is_wanted, note_fn=cli.note
    )
  finally:
    shown.close()
  return outcome, interrupt.exit_code()


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
