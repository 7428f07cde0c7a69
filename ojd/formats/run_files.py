"""The files of a run that other rooms read: their names and their content."""

import json
import pathlib
from typing import Any

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
PARENT_METRICS = "parent.jsonl"  # METRICS of the run that a fork left
OVERLAY, REPORT = "overlay.mp4", "report"
CHECKPOINTS, TRAJECTORY = "checkpoints", "trajectory"
_MAX_LINE = 1 << 16  # bytes, of METRICS


def read_json(path: pathlib.Path, most: int = -1) -> dict[str, Any] | None:
  """A JSON object of a file; None where there is no whole one.

  Args:
    path: of the file.
    most: bytes that are read of it; -1: all.
  """
  try:
    with path.open("rb") as file:
      content = json.loads(file.read(most))
  except (OSError, ValueError, RecursionError):
    return None
  return content if isinstance(content, dict) else None


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl, without what a killed run left half-written."""
  rows = []
  if not path.exists():
    return rows
  with path.open("rb") as file:
    while line := file.readline(_MAX_LINE):
      row = _parse(line)
      if isinstance(row, dict) and _is_index(row.get("t")):
        rows.append(row)
  return rows


def _parse(line):
  try:
    return json.loads(line.decode("utf-8", errors="replace"))
  except (ValueError, RecursionError):
    return None


def _is_index(t):
  return isinstance(t, int) and not isinstance(t, bool) and 0 <= t < 2**53
