"""Memory that was freed goes back to the system."""

import platform

import psutil

from ojd.run import compilation


def test_freed_memory_is_returned():
  resident_mb = lambda: psutil.Process().memory_info().rss / 2**20
  # In pieces that the C library keeps, for the last of them stays in use.
  pieces = [bytes(10_000) for _ in range(20_000)]
  last = pieces[-1]
  del pieces
  before = resident_mb()
  compilation.return_memory()
  # Elsewhere than on glibc nothing is returned, and nothing goes wrong.
  has_glibc = platform.libc_ver()[0] == "glibc"
  assert not has_glibc or before - resident_mb() > 100
  assert len(last) == 10_000
