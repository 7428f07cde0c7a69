"""Memory that was freed goes back to the system."""

import pathlib
import sys

import pytest

from ojd.run import compilation


def _resident_mb():
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  (line,) = (line for line in lines if line.startswith("VmRSS"))
  return int(line.split()[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_returned():
  # In pieces that the C library keeps, for the last of them stays in use.
  pieces = [bytes(10_000) for _ in range(20_000)]
  last = pieces[-1]
  del pieces
  before = _resident_mb()
  compilation.return_memory()
  assert before - _resident_mb() > 100
  assert len(last) == 10_000
