"""The binaries; `python -m experiments.NAME`.

On Linux they start once more, with the C library set to ask for large
pages: XLA takes fresh memory for every step of a student, and to get it in
pages of 4 kB takes a third of the step's time.

On a GPU, JAX takes memory as it needs it: the teacher lives there too.
"""

import os
import sys

_NAME, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def _is_binary() -> bool:
  """Whether this is the start of `python -m experiments.NAME`."""
  words = sys.orig_argv
  if sys.argv[0] != "-m" or "-m" not in words:
    return False
  module = words[words.index("-m") + 1 :][:1]
  return bool(module) and module[0].startswith(__name__ + ".")


if _is_binary():  # jax reads it when it first looks for devices
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if sys.platform == "linux" and _NAME not in os.environ and _is_binary():
  os.execve(sys.executable, sys.orig_argv, {**os.environ, _NAME: _VALUE})
