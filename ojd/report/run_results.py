"""What the files of a workdir say of its run."""

import pathlib
from typing import Any, NamedTuple

from ojd.errors import UserError
from ojd.formats import run_files
from ojd.report import values

_MAX_JSON = 1 << 24  # bytes of a file that is read whole


class Run(NamedTuple):
  """A run; empty where a file is missing."""

  workdir: pathlib.Path
  config: dict[str, Any]
  summary: dict[str, Any]
  rows: list[dict[str, Any]]  # of metrics.jsonl
  parent_rows: list[dict[str, Any]] = []  # of the run that it is a fork of

  @property
  def flags(self) -> dict[str, Any]:
    """What it was asked for."""
    return values.mapping(self.config, "flags")


def read(workdir: pathlib.Path) -> Run:
  """What a workdir says; nothing of files that are missing or damaged."""
  rows = run_files.read_metrics(workdir / run_files.METRICS)
  return Run(
    workdir,
    _read_json(workdir / run_files.CONFIG),
    _count(rows) | _read_json(workdir / run_files.SUMMARY),
    rows,
    run_files.read_metrics(workdir / run_files.PARENT_METRICS),
  )


def check(workdir: pathlib.Path) -> None:
  """Raises a UserError where a folder is not a run's, or is damaged."""
  if not workdir.is_dir():
    raise UserError(f"{workdir}: there is no such folder")
  if not (workdir / run_files.CONFIG).is_file():
    raise UserError(f"{workdir} is no workdir: it has no config.json")
  if not values.mapping(_read_json(workdir / run_files.CONFIG), "flags"):
    raise UserError(f"{workdir}: its config.json is damaged")
  metrics, summary = workdir / run_files.METRICS, workdir / run_files.SUMMARY
  if not metrics.is_file():
    raise UserError(f"{workdir}: its metrics.jsonl is missing")
  if summary.exists() and not _read_json(summary):
    raise UserError(f"{workdir}: its summary.json is damaged")
  try:
    is_damaged = metrics.stat().st_size and not run_files.read_metrics(metrics)
  except OSError as error:
    raise UserError(f"{metrics}: {error.strerror}") from None
  if is_damaged:
    raise UserError(f"{workdir}: its metrics.jsonl is damaged")


def _read_json(path):
  return run_files.read_json(path, _MAX_JSON) or {}


def _count(rows):
  """What can be said of a run that had no time for a summary."""
  keys = [row for row in rows if row.get("is_key")]
  updates = [row.get("num_updates") for row in keys]
  return {
    "finished": False,
    "num_frames": len(rows),
    "num_key_frames": len(keys),
    "key_frame_fraction": len(keys) / max(len(rows), 1),
    "num_updates": sum(x for x in updates if values.is_number(x)),
    "eval_frames": sum(values.is_number(row.get("eval_miou")) for row in rows),
  }
