"""Reads a stream ahead in a thread, so decoding overlaps with the student."""

import queue
import threading
from collections.abc import Callable, Iterator

from ojd.types import Sample

DEPTH = 4  # samples decoded ahead; more only costs memory
_POLL_SECONDS = 0.1


class Prefetcher:
  """Iterates over samples in order; raises what the stream raises."""

  def __init__(
    self,
    samples: Iterator[Sample],
    depth: int = DEPTH,
    should_stop: Callable[[], bool] = lambda: False,
    interrupt: Callable[[], None] = lambda: None,
  ):
    """Begins to read.

    Args:
      samples: of a stream.
      depth: samples decoded ahead.
      should_stop: called while there is no sample; True ends the iteration.
      interrupt: ends the stream's wait for a frame.
    """
    self._should_stop, self._interrupt = should_stop, interrupt
    self._queue: queue.Queue = queue.Queue(depth)
    self._stopped = threading.Event()
    self._thread = threading.Thread(
      target=self._fill, args=(samples,), name="prefetch", daemon=True
    )
    self._thread.start()

  def _fill(self, samples):
    try:
      for sample in samples:
        if not self._put((sample, None)):
          return
      self._put((None, None))
    except Exception as error:
      self._put((None, error))

  def _put(self, item):
    """Waits for room until the reader is closed; returns whether it put."""
    while not self._stopped.is_set():
      try:
        self._queue.put(item, timeout=_POLL_SECONDS)
        return True
      except queue.Full:
        continue
    return False

  def __iter__(self) -> Iterator[Sample]:
    while True:
      try:
        sample, error = self._queue.get(timeout=_POLL_SECONDS)
      except queue.Empty:
        if self._should_stop():
          return
        continue
      if error is not None:
        raise error
      if sample is None:
        return
      yield sample

  def close(self) -> None:
    """Ends the thread; a second call does nothing."""
    self._stopped.set()
    self._interrupt()
    self._thread.join()


def readable(samples: Iterator[Sample], end: int) -> Iterator[Sample]:
  """The samples before frame `end` that could be decoded, read ahead."""
  prefetcher = Prefetcher(samples)
  try:
    for sample in prefetcher:
      if sample.t >= end:
        return
      if sample.frame is not None:
        yield sample
  finally:
    prefetcher.close()
