"""The points of a chart while a run goes on: never more than a screen shows."""

from typing import NamedTuple

MAX_POINTS = 2000


class Seen(NamedTuple):
  """How much of a series somebody has."""

  width: int  # values to a point
  num_points: int


NOTHING = Seen(0, 0)


class Tail(NamedTuple):
  """What somebody lacks: points in the place of those from `start` on."""

  start: int
  points: list[tuple[int, float]]  # frame, average
  seen: Seen  # with these


class _Bin:
  """The sum of values that are one point of the chart."""

  __slots__ = ("t", "total", "count")

  def __init__(self, t, total, count):
    self.t, self.total, self.count = t, total, count


class Series:
  """Averages over `width` values each; when there are too many it doubles.

  Thinning evenly keeps the whole run on the chart; what is lost is detail, and
  peaks are lower, since a point is an average and no sample.
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
    """What has been added or has grown since; all after a thinning."""
    start = 0
    if seen.width == self._width:
      start = max(seen.num_points - 1, 0)  # the last may have grown
    points = [(b.t, round(b.total / b.count, 4)) for b in self._bins[start:]]
    return Tail(start, points, Seen(self._width, len(self._bins)))
