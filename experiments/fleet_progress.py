"""Shows a fleet: a table on a terminal, plain lines in a log."""

import shutil
import sys
import time
from typing import Any

from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table

from ojd.fleet import member
from ojd.fleet.fleet import Progress

_LOG_SECONDS = 5.0
_LINES_BESIDE = 6  # of the terminal, for the head and what is said of all


def totals(progress: Progress) -> str:
  """All streams in a line."""
  states = [one.state for one in progress.members]
  running = [one for one in progress.members if one.progress]
  frames = sum(one.progress.num_frames for one in running)
  lengths = [one.progress.total for one in running]
  known = [one.progress.miou for one in running]
  judged = [miou for miou in known if miou is not None]
  fps = sum(one.progress.fps for one in running if one.state == member.RUNNING)
  words = [
    f"{states.count(member.RUNNING)} of {len(states)} streams run",
    f"{states.count(member.DONE)} done",
    f"{states.count(member.DEAD)} dead",
    f"frame {frames}" + ("" if None in lengths else f"/{sum(lengths)}"),
    f"{fps:.1f} fps",
    f"{sum(one.progress.num_keys for one in running)} key frames",
    f"teacher {progress.teachers.num_answers} answers, "
    f"{_busy(progress):.0%} busy",
    "mIoU " + (f"{sum(judged) / len(judged):.3f}" if judged else "-"),
  ]
  return "  ".join(words)


def _busy(progress):
  teachers = progress.teachers
  seconds = progress.seconds * max(teachers.num_teachers, 1)
  return teachers.seconds / seconds if seconds else 0.0


class Log:
  """A line about all every few seconds, and one for each thing that happens."""

  def __init__(self, clock=time.monotonic, write=None):
    self._clock = clock
    self._write = write or (lambda line: print(line, file=sys.stderr))
    self._last = clock()
    self._first: tuple[float, int] | None = None  # when, and how many frames

  def __call__(self, progress: Progress) -> None:
    if progress.news:
      self._write(progress.news)
      return
    now = self._clock()
    if now - self._last < _LOG_SECONDS:
      return
    self._last = now
    self._write(totals(progress) + self._eta(progress, now))

  def _eta(self, progress, now):
    running = [one.progress for one in progress.members if one.progress]
    done = sum(each.num_frames for each in running)
    self._first = self._first or (now, done)
    since, before = self._first
    if done == before or any(each.total is None for each in running):
      return ""
    left = sum(each.total for each in running) - done
    return f"  ETA {(now - since) / (done - before) * left:.0f} s"

  def close(self) -> None:
    """Nothing is left open."""


class Table:
  """A line a stream, those first that run, as many as the terminal shows."""

  def __init__(self):
    self._console = rich_console.Console(stderr=True)
    self._live = rich_live.Live(console=self._console, auto_refresh=False)
    self._live.start()

  def __call__(self, progress: Progress) -> None:
    if progress.news:
      self._console.print(progress.news, markup=False, highlight=False)
      return
    height = shutil.get_terminal_size().lines
    self._live.update(
      table(progress, max(height - _LINES_BESIDE, 1)), refresh=True
    )

  def close(self) -> None:
    """Leaves the last state on the screen."""
    self._live.stop()


def table(progress: Progress, num_lines: int) -> rich_table.Table:
  """The streams, and all of them in the caption."""
  caption = totals(progress)
  shown = rich_table.Table(box=None, caption=caption, caption_justify="left")
  shown.add_column("stream", no_wrap=True)
  for name in ("frame", "fps", "stride", "keys", "updates", "mIoU", "state"):
    shown.add_column(name, justify="right", no_wrap=True)
  order = [member.RUNNING, member.DEAD, member.NEW, member.STOPPED, member.DONE]
  ranked = sorted(progress.members, key=lambda one: order.index(one.state))
  for one in ranked[:num_lines]:
    shown.add_row(one.name, *_cells(one), one.state)
  if len(ranked) > num_lines:
    shown.add_row(f"... and {len(ranked) - num_lines} more")
  return shown


def _cells(one):
  found = one.progress
  if found is None:
    return [""] * 6
  total = f"/{found.total}" if found.total else ""
  return [
    f"{found.num_frames}{total}",
    f"{found.fps:.1f}",
    str(found.stride),
    str(found.num_keys),
    str(found.num_updates),
    "-" if found.miou is None else f"{found.miou:.3f}",
  ]


def watcher() -> Log | Table:
  """What fits where standard error goes."""
  return Table() if sys.stderr.isatty() else Log()


def in_words(summary: dict[str, Any]) -> str:
  """A fleet's summary in a few lines, and one for each stream that is dead."""
  last, states = summary["last_session"], summary["states"]
  others = ", ".join(
    f"{states[name]} {name}" for name in ("stopped", "dead") if states[name]
  )
  mean = summary["miou"]
  put_off = summary["deferred"]
  lines = [
    f"{'done' if summary['finished'] else 'not done'}: "
    f"{states['done']} of {summary['num_streams']} streams"
    + (f" ({others})" if others else "")
    + f", {summary['num_frames']} frames, {summary['num_key_frames']} key "
    f"frames"
    + (f" ({put_off} times put off)" if put_off else "")
    + f", {summary['num_updates']} updates",
    f"{last['fps']:.1f} frames/s and {last['teacher_calls_per_second']:.2f} "
    f"calls of a shared teacher a second over {last['seconds']:.0f} s; "
    f"mean mIoU of the streams "
    + ("not measured" if mean is None else f"{mean:.3f}"),
  ]
  for name, one in summary["streams"].items():
    if one["state"] == member.DEAD:
      lines.append(f"dead: {name}: {one['problem']}")
  return "\n".join(lines)
