"""The folder of a comparison: its settings and its files.

compare.json    the settings of all cells
cells/          the runs, each an ordinary workdir
table.txt table.csv cells.csv table.tex index.html     the results
accuracy.png work.png     in pictures; the second where work differs
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any

from ojd.compare.spec import StreamEntry, SystemEntry
from ojd.errors import UserError
from ojd.run import workdir
from ojd.run.config import RunConfig

SETTINGS, CELLS = "compare.json", "cells"
TEXT, LATEX = "table.txt", "table.tex"
CELLS_CSV, TABLE_CSV = "cells.csv", "table.csv"
PAGE = "index.html"
# By what accuracy is drawn against.
PICTURES = {"ms_paper_model": "accuracy.png", "gmac_per_frame": "work.png"}
_FORMAT = 1
_MAX_FILE = 1 << 20  # bytes of compare.json
_APART = ("stream", "system", "seed", "workdir")  # in which cells differ


def expand(text: str) -> pathlib.Path:
  """The folder of --output, with ~ expanded."""
  if not text:
    raise UserError("--output=DIR is missing: the folder for the results")
  return workdir.expand(text, "output")


def cell(stream: StreamEntry, system: SystemEntry, seed: int) -> str:
  """The path of a cell, for any names of stream and system."""
  flags = sorted(system.flags.items())
  words = [system.flag, *(f"{name}={value}" for name, value in flags)]
  exact = hashlib.sha256(repr([stream.uri, words]).encode()).hexdigest()[:8]
  parts = (stream.uri[-40:], " ".join(words)[:60])
  plain = (re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_.") for part in parts)
  return f"{CELLS}/{'-'.join(plain)}-{seed}-{exact}"


def settings(config: RunConfig, **more: Any) -> dict[str, Any]:
  """The settings of all cells; for JSON."""
  flags = dataclasses.asdict(config)
  return {n: flags[n] for n in flags if n not in _APART} | more


def inspect(path: pathlib.Path, now: dict[str, Any]) -> bool:
  """Refuses a folder that is not one of a comparison with these settings.

  Returns:
    Whether it holds a comparison to resume.
  """
  if path.exists() and not path.is_dir():
    raise UserError(f"--output={path} is a file")
  try:
    if not path.exists() or not any(map(workdir.is_content, path.iterdir())):
      return False
    with (path / SETTINGS).open("rb") as file:
      content = json.loads(file.read(_MAX_FILE))
    if content["format"] != _FORMAT:
      raise ValueError("another format")
    old = dict(content["settings"])
  except FileNotFoundError:
    raise UserError(
      f"--output={path} holds files that are not of a comparison; name a new "
      "folder"
    ) from None
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    raise UserError(
      f"--output={path}: its {SETTINGS} cannot be read; name a new folder"
    ) from None
  differing = _differences(old, now)
  if differing:
    raise UserError(
      f"--output={path} holds a comparison with other {'; '.join(differing)}; "
      "name a new folder"
    )
  return True


def _differences(old, now):
  """Flags in which two comparisons differ, in words."""
  # A flag that an older version did not have was what it is by default.
  defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
  return [
    f"--{name} ({before}, now {now.get(name)})"
    for name in sorted(old.keys() | now.keys())
    if (before := old.get(name, defaults.get(name))) != now.get(name)
  ]


def create(path: pathlib.Path, now: dict[str, Any]) -> None:
  """Writes compare.json into the folder."""
  content = {"format": _FORMAT, "settings": now}
  try:
    workdir.write_json(path / SETTINGS, content)
  except OSError as error:
    raise UserError(
      f"--output={path} cannot be written: {error.strerror}"
    ) from None
