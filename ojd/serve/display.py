"""The state of a run for viewers, which never makes the run wait.

The run's thread only stores references here, under a lock that is never held
for long, and wakes no thread. Watchers poll.
"""

import collections
import itertools
import math
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ojd.formats import palette
from ojd.run.overlay import FrameImages
from ojd.run.runner import About
from ojd.run.stats import Progress

STARTING, RUNNING = "starting", "running"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
ENDED = (FINISHED, STOPPED, FAILED)

MAX_POINTS = 2000  # of a chart: never more than a screen shows
_FPS_SECONDS = 2.0  # over which the frames of a second are counted
_MAX_TIMES = 4096
_MAX_PROBLEM = 300  # characters
_PASSWORD = re.compile(r"//[^/@\s]*@")


class Latest(NamedTuple):
  """The newest frame."""

  number: int  # of frames handed over until then; 0 for none
  record: FrameImages | None
  class_names: tuple[str, ...]


class Seen(NamedTuple):
  """How much of a series a viewer has."""

  width: int  # values to a point
  num_points: int


NOTHING = Seen(0, 0)


class Tail(NamedTuple):
  """What a viewer lacks: points that replace those from `start` on."""

  start: int
  points: list[tuple[int, float]]  # frame, average
  seen: Seen  # with these


class _Bin:
  """The sum of values that are one point of the chart."""

  __slots__ = ("t", "total", "count")

  def __init__(self, t, total, count):
    self.t, self.total, self.count = t, total, count


class Series:
  """Averages of `width` values each; the width doubles when there are too many.

  The whole run stays on the chart, with less detail and lower peaks: a point is
  an average, not a sample.
  """

  def __init__(self, max_points: int = MAX_POINTS):
    self._max, self._width = max_points, 1
    self._bins: list[_Bin] = []

  def add(self, t: int, value: float) -> None:
    """Takes the value of a frame that is later than all before."""
    if self._bins and self._bins[-1].count < self._width:
      last = self._bins[-1]
      last.total, last.count = last.total + value, last.count + 1
      return
    self._bins.append(_Bin(t, value, 1))
    if len(self._bins) > self._max:
      self._merge()

  def _merge(self):
    old = self._bins
    self._bins = [
      _Bin(a.t, a.total + b.total, a.count + b.count)
      for a, b in zip(old[::2], old[1::2], strict=False)
    ]
    if len(old) % 2:
      self._bins.append(old[-1])
    self._width *= 2

  def tail(self, seen: Seen = NOTHING) -> Tail:
    """The points that are new or have grown; all of them after a thinning."""
    start = 0
    if seen.width == self._width:
      start = max(seen.num_points - 1, 0)  # the last may have grown
    points = [(b.t, round(b.total / b.count, 4)) for b in self._bins[start:]]
    return Tail(start, points, Seen(self._width, len(self._bins)))


class Cursor(NamedTuple):
  """How much of the display a viewer has."""

  version: int
  has_about: bool
  seen: dict[str, Seen]


UNSEEN = Cursor(-1, False, {})


class Counts(NamedTuple):
  """The run in numbers at this moment."""

  state: str
  progress: Progress | None  # None before the first frame
  fps: float  # frames of the last seconds, by the clock on the wall


class LiveDisplay:
  """The newest frame, the counts and the charts of one run.

  Has the methods of `writers.Background`, so that it is one more sink of the
  loop, and listens to the lines of metrics.jsonl and to the progress.
  """

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    self._clock = clock
    self._lock = threading.Lock()
    self._state, self._version = STARTING, 0
    self._about: About | None = None
    self._record: FrameImages | None = None
    self._num_records = 0
    self._progress: Progress | None = None
    self._summary: dict[str, Any] | None = None
    self._problem = ""
    self._times: collections.deque[float] = collections.deque(maxlen=_MAX_TIMES)
    names = ("miou", "updates", "stride", "fps")
    self._series = {name: Series() for name in names}

  # What the run calls.

  def begin(
    self, about: About, past_lines: Iterable[dict[str, Any]] = ()
  ) -> None:
    """Shows the run, and its lines before it was interrupted."""
    with self._lock:
      self._about = about._replace(stream=_PASSWORD.sub("//", about.stream))
      for line in past_lines:
        self._add_line(line)
      self._version += 1

  def put(self, record: FrameImages) -> None:
    """Replaces the newest frame; returns at once."""
    with self._lock:
      self._record = record
      self._num_records += 1

  def cut(self) -> Callable[[], None]:
    """Does nothing: nothing is written."""
    return lambda: None

  def close(self) -> None:
    """The frames are over; the display stays."""

  def line(self, line: dict[str, Any]) -> None:
    """Takes a line of metrics.jsonl."""
    now = self._clock()
    with self._lock:
      self._times.append(now)
      t = line.get("t")
      fps = self._frames_per_second(now)
      if fps is not None and _is_number(t):
        self._series["fps"].add(t, fps)
      self._add_line(line)
      self._state = RUNNING
      self._version += 1

  def _add_line(self, line):
    t = line.get("t")
    if not _is_number(t):
      return
    values = {"miou": line.get("eval_miou"), "stride": line.get("stride")}
    if line.get("is_key"):
      values["updates"] = line.get("num_updates")
    for name, value in values.items():
      if _is_number(value):
        self._series[name].add(t, value)

  def progress(self, progress: Progress) -> None:
    """Takes the counts, and the problem of a frame."""
    with self._lock:
      self._progress = progress
      if progress.problem:
        problem = _PASSWORD.sub("//", progress.problem)
        self._problem = problem[:_MAX_PROBLEM]
      self._version += 1

  def end(self, summary: dict[str, Any]) -> None:
    """Shows that the run is over, with what is in summary.json."""
    state = FINISHED if summary.get("finished") else STOPPED
    with self._lock:
      self._state, self._summary = state, summary
      self._version += 1

  def fail(self) -> None:
    """Shows that the run ended without a summary, unless its end is shown."""
    with self._lock:
      if self._state not in ENDED:
        self._state = FAILED
        self._version += 1

  # What watchers call.

  def latest(self) -> Latest:
    """The newest frame."""
    with self._lock:
      names = self._about.class_names if self._about else ()
      return Latest(self._num_records, self._record, names)

  def counts(self) -> Counts:
    """The numbers of now."""
    with self._lock:
      fps = self._frames_per_second(self._clock())
      if self._state in ENDED:
        fps = 0.0
      return Counts(self._state, self._progress, fps or 0.0)

  def news(self, cursor: Cursor) -> tuple[dict[str, Any] | None, Cursor]:
    """What a viewer lacks, for JSON, and the viewer's next cursor."""
    with self._lock:
      if cursor.version == self._version:
        return None, cursor
      tails = {
        name: series.tail(cursor.seen.get(name, NOTHING))
        for name, series in self._series.items()
      }
      about, progress = self._about, self._progress
      news = {"state": self._state, "problem": self._problem}
      summary, version = self._summary, self._version
    news["series"] = {
      name: {"start": tail.start, "points": tail.points}
      for name, tail in tails.items()
    }
    if progress is not None:
      news["counts"] = _counts(progress)
    if about is not None and not cursor.has_about:
      news["about"] = _about(about)
    if summary is not None:
      news["summary"] = _summary(summary)
    seen = {name: tail.seen for name, tail in tails.items()}
    has_about = cursor.has_about or about is not None
    return news, Cursor(version, has_about, seen)

  def _frames_per_second(self, now):
    """Of the last seconds; None before there are two frames."""
    times = self._times
    # Two stay, however slow the run is.
    while len(times) > 2 and times[0] < now - _FPS_SECONDS:
      times.popleft()
    if len(times) < 2:
      return None
    return (len(times) - 1) / max(now - times[0], 1e-3)


def _is_number(x):
  is_number = isinstance(x, int | float) and not isinstance(x, bool)
  return is_number and math.isfinite(x)


def _counts(progress):
  return {
    "num_frames": progress.num_frames,
    "total": progress.total,
    "fps": round(progress.fps, 2),
    "stride": progress.stride,
    "num_keys": progress.num_keys,
    "num_updates": progress.num_updates,
    "miou": progress.miou if _is_number(progress.miou) else None,
    "num_skipped": progress.num_skipped,
    "num_teacher_failures": progress.num_teacher_failures,
  }


def _about(about):
  colors = palette.colors(len(about.class_names)).tolist()
  named = zip(about.class_names, colors, strict=True)
  return {
    "stream": about.stream,
    "system": about.system,
    "classes": [
      {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color)}
      for name, color in itertools.islice(named, 1, None)
    ],
  }


def _summary(summary):
  """What the page says of a run that is over."""
  miou = summary.get("miou") or {}
  per_class = miou.get("per_class") or {}
  names = ("num_frames", "num_key_frames", "num_updates", "fps")
  speedups = ("speedup_measured", "speedup_paper_model")
  numbers = {name: summary.get(name) for name in (*names, *speedups)}
  numbers["miou"] = miou.get("mean")
  return {
    **{name: x if _is_number(x) else None for name, x in numbers.items()},
    "reference": miou.get("reference"),
    "per_class": {n: x for n, x in per_class.items() if _is_number(x)},
  }
