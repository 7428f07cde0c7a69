"""Memory that was freed goes back to the system."""

import platform

import psutil

from ojd.run import compilation


def _resident_mb():
  return psutil.Process().memory_info().rss / 2**20


def _has_glibc():
  return platform.libc_ver()[0] == "glibc"


def test_freed_memory_is_returned():
  # In pieces that the C library keeps, for the last of them stays in use.
  pieces = [bytes(10_000) for _ in range(20_000)]
  last = pieces[-1]
  del pieces
  before = _resident_mb()
  compilation.return_memory()
  # Elsewhere than on glibc nothing is returned, and nothing goes wrong.
  assert not _has_glibc() or before - _resident_mb() > 100
  assert len(last) == 10_000
