"""The thread keeps order, passes errors on and never outlives its reader."""

import threading

import pytest

from ojd.streams import prefetch
from ojd.types import Sample


def _samples(num, log):
  for t in range(num):
    log.append(t)
    yield Sample(t, None, None)


def _num_threads():
  return sum(t.name == "prefetch" for t in threading.enumerate())


def test_order_and_end_and_an_error_after_the_samples_before_it():
  def broken():
    yield from _samples(2, [])
    raise OSError("cable out")

  reader, seen = prefetch.Prefetcher(broken()), []
  with pytest.raises(OSError, match="cable out"):
    for sample in reader:
      seen.append(sample.t)
  reader.close()
  assert seen == [0, 1]
  reader = prefetch.Prefetcher(_samples(20, []))
  assert [s.t for s in reader] == list(range(20))
  reader.close()
  assert _num_threads() == 0


def test_reads_no_further_ahead_than_asked():
  log = []
  reader = prefetch.Prefetcher(_samples(1000, log), depth=3)
  iterator = iter(reader)
  for _ in range(5):
    next(iterator)
  reader.close()
  # Five taken, three waiting, one in the thread's hand, one being read.
  assert len(log) <= 10
  assert _num_threads() == 0


def test_who_waits_for_a_sample_can_be_stopped():
  is_wanted, release = threading.Event(), threading.Event()

  def forever():
    release.wait(20)
    yield from ()

  reader = prefetch.Prefetcher(
    forever(), should_stop=is_wanted.is_set, interrupt=release.set
  )
  is_wanted.set()
  assert next(iter(reader), None) is None
  reader.close()
