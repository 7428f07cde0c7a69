"""The registry of launches in an output folder: what ran, and how it ended.

launch/NAME.log        what the run printed
launch/NAME.json       how its last start ended: command, code, seconds, host
launch/NAME.job.json   as which job it was submitted, where there are such

A run is done when its last start ended with code 0 and was of the very same
command, and its folder is there.
"""

import pathlib
from typing import NamedTuple

from launch.runs import REGISTRY, Run
from ojd.errors import UserError
from ojd.run import workdir

_MAX_FILE = 1 << 20  # bytes
_LAST_BYTES = 4096  # of a log, to find its last line in


class Registry(NamedTuple):
  """The registry in one output folder."""

  folder: pathlib.Path

  def log(self, run: Run) -> pathlib.Path:
    """Where what the run prints goes."""
    return self.folder / f"{run.name}.log"

  def record(self, run: Run) -> pathlib.Path:
    """Where it is written how the run ended."""
    return self.folder / f"{run.name}.json"

  def is_done(self, run: Run) -> bool:
    """Whether the run need not be started."""
    found = workdir.read_json(self.record(run), _MAX_FILE) or {}
    is_same = found.get("command") == list(run.command)
    return is_same and found.get("code") == 0 and run.folder.is_dir()

  def write_job(self, run: Run, job: str) -> None:
    """Notes that the run was submitted."""
    content = {"command": list(run.command), "job": job}
    workdir.write_json(self._job(run), content)

  def job(self, run: Run) -> str | None:
    """The job as which this very command was submitted last."""
    found = workdir.read_json(self._job(run), _MAX_FILE) or {}
    is_same = found.get("command") == list(run.command)
    job = found.get("job")
    return job if is_same and isinstance(job, str) else None

  def _job(self, run):
    return self.folder / f"{run.name}.job.json"


def in_output(output: pathlib.Path) -> Registry:
  """The registry of an output folder; nothing is made yet."""
  return Registry(output / REGISTRY)


def claim(registry: Registry):
  """Makes the folder of the registry and keeps other launchers out of it."""
  if registry.folder.exists() and not registry.folder.is_dir():
    raise UserError(f"--output: {registry.folder} is a file")
  return workdir.claim(registry.folder, "output")


def last_line(path: pathlib.Path) -> str:
  """The last line of a log that is not empty."""
  try:
    with path.open("rb") as file:
      size = file.seek(0, 2)
      file.seek(max(size - _LAST_BYTES, 0))
      text = file.read().decode("utf-8", "replace")
  except OSError:
    return ""
  lines = [line for line in text.splitlines() if line.strip()]
  return " ".join(lines[-1].split()) if lines else ""
