"""Plays a recorded stream at its own rate, as a camera would."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ojd.streams import base
from ojd.types import Sample


class Paced(NamedTuple):
  """A stream whose frames come no sooner than they would from a camera.

  None is dropped: who is slower than the stream falls behind it.
  """

  stream: base.Stream
  clock: Callable[[], float] = time.monotonic
  sleep: Callable[[float], None] = time.sleep

  @property
  def spec(self) -> base.StreamSpec:
    return self.stream.spec

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples; the first at once."""
    begun = self.clock()
    for sample in self.stream.read(start):
      due = begun + (sample.t - start) / self.spec.fps
      self.sleep(max(due - self.clock(), 0.0))
      yield sample
