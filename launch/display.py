"""Shows a launch: a live table on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable

from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table
from rich import text as rich_text

from launch.drive import Progress

_LOG_SECONDS = 30.0
_MAX_ROWS = 24
_REDRAW_SECONDS = 0.5


def describe(progress: Progress) -> str:
  """How many runs are done, fail, go on, and how long the rest may take."""
  line = f"{progress.num_done}/{progress.num_all} done"
  if progress.num_failed:
    line += f", {progress.num_failed} failed"
  line += f", {len(progress.active)} running"
  if progress.eta is not None and progress.num_done < progress.num_all:
    line += f", ETA {duration(progress.eta)}"
  return line


def duration(seconds: float) -> str:
  """As h:mm:ss."""
  minutes, seconds = divmod(round(seconds), 60)
  return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class Log:
  """A line for each run that begins or ends, and one now and then."""

  def __init__(
    self,
    clock: Callable[[], float] = time.monotonic,
    write: Callable[[str], None] | None = None,
  ):
    self._clock = clock
    self._write = write or (lambda line: print(line, file=sys.stderr))
    self._last = clock()

  def __call__(self, progress: Progress) -> None:
    now = self._clock()
    if not progress.news and now - self._last < _LOG_SECONDS:
      return
    self._last = now
    news = f"  {progress.news}" if progress.news else ""
    self._write(describe(progress) + news)

  def close(self) -> None:
    """Nothing is left open."""


class Display:
  """The runs that go on with the last lines of their logs, for terminals."""

  def __init__(self, console: rich_console.Console | None = None):
    console = console or rich_console.Console(stderr=True)
    self._live = rich_live.Live(console=console, auto_refresh=False)
    self._live.start()
    self._last = float("-inf")
    self._shown: Progress | None = None

  def __call__(self, progress: Progress) -> None:
    self._shown = progress
    # What begins is in the table.
    if progress.news and not progress.news.endswith(": started"):
      self._live.console.print(progress.news, markup=False, highlight=False)
    now = time.monotonic()
    if now - self._last >= _REDRAW_SECONDS:
      self._last = now
      self._live.update(_table(progress), refresh=True)

  def close(self) -> None:
    """Leaves the last state on the screen."""
    if self._shown is not None:
      self._live.update(_table(self._shown), refresh=True)
    self._live.stop()


def _table(progress):
  table = rich_table.Table(
    title=describe(progress), box=None, expand=True, title_justify="left"
  )
  table.add_column("run", no_wrap=True, ratio=2)
  table.add_column("time", justify="right", no_wrap=True)
  table.add_column("says", no_wrap=True, ratio=3)
  for active in progress.active[:_MAX_ROWS]:
    words = (active.name, duration(active.seconds), active.words)
    table.add_row(*map(rich_text.Text, words))
  if len(progress.active) > _MAX_ROWS:
    table.add_row(f"and {len(progress.active) - _MAX_ROWS} more")
  return table


def watcher() -> Log | Display:
  """What fits where standard error goes."""
  return Display() if sys.stderr.isatty() else Log()
