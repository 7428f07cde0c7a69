"""How binaries are started: with large pages, where there are some."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from tests import binaries

NAME = "GLIBC_TUNABLES"
WITHOUT = {k: v for k, v in os.environ.items() if k != NAME}
# What a binary is started with where nothing is said.
LARGE = "glibc.malloc.hugetlb=1" if sys.platform == "linux" else None


@pytest.mark.parametrize(
  ("given", "wanted"), [({}, LARGE), ({NAME: "own=1"}, "own=1")]
)
def test_binary_asks_for_large_pages_unless_told_otherwise(given, wanted):
  nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
  words = ("describe", "--model=jitnet")
  process = binaries.start(*words, env=WITHOUT | given, **nowhere)
  found = set()
  while process.poll() is None:
    try:
      found.add(psutil.Process(process.pid).environ().get(NAME))
    except psutil.Error:
      break
    time.sleep(0.005)
  process.wait()
  # The same process all along, whatever it was at first.
  assert wanted in found and found <= {wanted, None}


def test_importing_the_package_starts_nothing():
  code = f"import experiments, os; print(os.environ.get('{NAME}'))"
  command = [sys.executable, "-c", code]
  options = {"cwd": binaries.ROOT, "env": WITHOUT, "text": True}
  assert subprocess.check_output(command, **options).strip() == "None"
