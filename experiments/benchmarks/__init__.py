"""What `experiments.benchmark` measures, an entry a file.

An entry is a module here that names what it measures in its docstring and has
CASES, and a row in ENTRIES. The other modules are what entries share.
"""

import importlib
import types

ENTRIES = (
  "student",
  "update",
  "mobilenet",
  "adapt",
  "streams",
  "run",
  "draw",
  "start",
  "memory",
  "checkpoint",
  "io",
  "live",
  "edge",
  "device",
  "delta",
  "fleet",
  "labels",
  "teacher",
)


def load(name: str) -> types.ModuleType:
  """The module of an entry, imported now."""
  return importlib.import_module(f"{__name__}.{name}")
