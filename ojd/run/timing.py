"""Where the time of a run goes."""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

from ojd.costs import Costs

_STUDENT = Costs()


class Stages:
  """Adds up the seconds of named stages; the clock can be injected."""

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    self.seconds: dict[str, float] = {}
    self.counts: dict[str, int] = {}
    self.last: dict[str, float] = {}
    self._clock, self._start = clock, clock()

  def elapsed(self) -> float:
    """Seconds since this clock was made."""
    return self._clock() - self._start

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Times a block, also one that raises."""
    start = self._clock()
    try:
      yield
    finally:
      self.add(name, self._clock() - start)

  def add(self, name: str, seconds: float) -> None:
    """Counts a block that was timed elsewhere."""
    self.last[name] = seconds
    self.seconds[name] = self.seconds.get(name, 0.0) + seconds
    self.counts[name] = self.counts.get(name, 0) + 1

  def restore(self, seconds: dict[str, float], counts: dict[str, int]) -> None:
    """Adds what the same stages took before this clock was made."""
    for name, spent in seconds.items():
      self.seconds[name] = self.seconds.get(name, 0.0) + spent
      self.counts[name] = self.counts.get(name, 0) + counts[name]

  def milliseconds(self, name: str) -> float:
    """Of the latest block of that name."""
    return round(1e3 * self.last[name], 3)

  def mean(self, name: str) -> float:
    """Seconds of an average block; 0 without any."""
    return self.seconds.get(name, 0.0) / max(self.counts.get(name, 0), 1)


def peak_memory_mb() -> float:
  """The most memory that this process ever held, in MB."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def paper_speedup(
  num_frames: int, num_keys: int, num_updates: int, costs: Costs = _STUDENT
) -> float:
  """How much faster than the teacher on every frame, by the paper's prices.

  300 N / (7 (N - n) + 300 n + 30 u) for a student; it is not charged on key
  frames. Methods of other prices have theirs.
  """
  spent = costs.predict * (num_frames - num_keys)
  spent += (costs.teacher + costs.lesson) * num_keys
  spent += costs.update * num_updates
  return costs.teacher * num_frames / spent if spent else 0.0
