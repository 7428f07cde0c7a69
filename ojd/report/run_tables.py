"""What the tables of a run's page show; nothing where nothing is known."""

import os
import pathlib
from typing import Any

from ojd import costs as cost_model
from ojd.formats import palette, run_files
from ojd.report import values
from ojd.report.run_results import Run
from ojd.types import MAX_CLASSES, Costs

_STAGES = {
  "read": "read the stream",
  "predict": "student, other frames",
  "teacher": "teacher, key frames",
  "teacher_failed": "teacher, without an answer",
  "ask": "hand frames to the teacher",
  "learn": "training, key frames",
  "write": "write files",
  "compile": "compile",
  "evaluate": "compare with the reference",
  "eval_teacher": "teacher, for the comparison",
  "eval_teacher_failed": "teacher, without an answer to compare with",
  "teacher_async": "teacher, beside the stream",
  "pretrain": "training before the stream",
}
# Stages that run once for each of a number of the summary.
_TIMES_RUN = {
  "read": "num_frames",
  "write": "num_frames",
  "evaluate": "eval_frames",
}
# Stages of summary.json that are charged one of the paper's prices.
_PRICED = {
  "teacher": ("teacher", "teacher_failed", "teacher_async"),
  "update": ("learn",),
  "predict": ("predict",),
  "training": (),
}
_FILES = {
  run_files.TRAJECTORY: "the teacher's answers",
  run_files.CHECKPOINTS: "to go on from",
  run_files.OVERLAY: "the video",
  "masks": "the student's class maps",
  run_files.METRICS: "a line a frame",
}


def classes(run: Run) -> list[dict[str, Any]]:
  """IoU of each class, and its colour."""
  miou = values.mapping(run.summary, "miou")
  colors = _class_colors(run.config.get("class_names"))
  return [
    {"name": name, "iou": iou, "color": colors.get(name, "transparent")}
    for name, iou in values.mapping(miou, "per_class").items()
  ]


def _class_colors(names):
  if not isinstance(names, list) or not 1 <= len(names) <= MAX_CLASSES:
    return {}
  colors = palette.colors(len(names)).tolist()
  return {
    str(name): f"rgb({r},{g},{b})"
    for name, (r, g, b) in zip(names, colors, strict=True)
  }


def times(run: Run) -> list[dict[str, Any]]:
  """Where the time went; stages that are no part of the method come last."""
  found = values.mapping(run.summary, "seconds")
  seconds = {name: x for name, x in found.items() if values.is_number(x)}
  known = [name for name in _STAGES if name in seconds]
  names = known + [name for name in seconds if name not in _STAGES]
  is_apart = {name: name in cost_model.EXCLUDED_STAGES for name in names}
  total = sum(seconds[name] for name in names if not is_apart[name])
  return [
    {
      "stage": _STAGES.get(name, name),
      "seconds": seconds[name],
      "share": seconds[name] / total if total else 0.0,
      "ms_each": _ms_each(run, name, seconds[name]),
      "is_apart": is_apart[name],
    }
    for name in sorted(names, key=is_apart.get)
  ]


def _ms_each(run, name, seconds):
  """None if the runs of the stage were not counted."""
  if name in _TIMES_RUN:
    count = values.number(run.summary.get(_TIMES_RUN[name]))
  else:
    # In a line the teacher's time has one name in all modes.
    name = "ms_teacher" if name == "teacher_async" else f"ms_{name}"
    count = sum(values.is_number(row.get(name)) for row in run.rows)
  return 1e3 * seconds / count if count else None


def costs(run: Run) -> dict[str, Any] | None:
  """The paper's prices beside the seconds of this run."""
  names = ("num_frames", "num_key_frames", "num_updates")
  counts = [run.summary.get(name) for name in names]
  if not all(values.is_number(x) and x >= 0 for x in counts) or not counts[0]:
    return None
  frames, keys, updates = counts
  prices = _prices(run)
  lines = [
    ("teacher calls", keys, "teacher"),
    ("training rounds", keys, "training"),
    ("updates", updates, "update"),
    ("other frames", frames - keys, "predict"),
  ]
  alone = prices.teacher * frames / 1e3
  speedup = cost_model.paper_speedup(frames, keys, updates, prices)
  return {
    "lines": [
      {
        "name": name,
        "count": count,
        "ms": getattr(prices, kind),
        "paper": count * getattr(prices, kind) / 1e3,
        "here": _seconds_of(run, kind),
      }
      for name, count, kind in lines
      if kind != "training" or prices.training
    ],
    "together": alone / (speedup or 1),
    "frames": frames,
    "teacher_ms": prices.teacher,
    "teacher_alone": alone,
  }


def _prices(run):
  """Of the run's method; the student's where the summary has none."""
  given = values.mapping(run.summary, "paper_ms")
  known = {
    name: given[name]
    for name in Costs._fields
    if values.is_number(given.get(name)) and given[name] >= 0
  }
  return Costs(**known)


def _seconds_of(run, kind):
  seconds = values.mapping(run.summary, "seconds")
  known = [seconds[stage] for stage in _PRICED[kind] if stage in seconds]
  return sum(known) if known and all(map(values.is_number, known)) else None


def disk(run: Run) -> list[dict[str, Any]]:
  """How large the files are that the run left."""
  sizes = {name: size_of(run.workdir / name) for name in _FILES}
  frames = values.number(run.summary.get("num_frames")) or 0
  return [
    {
      "name": name,
      "note": _FILES[name],
      "size": size,
      "size_each": size / frames if frames > 0 else None,
    }
    for name, size in sizes.items()
    if size
  ]


def size_of(path: pathlib.Path) -> int:
  """Bytes of a file, or of all in a folder; 0 where there is nothing."""
  if not path.is_dir():
    return path.stat().st_size if path.is_file() else 0
  total = 0
  for folder, _, names in os.walk(path):
    for name in names:
      try:
        total += os.lstat(os.path.join(folder, name)).st_size
      except OSError:  # a checkpoint that has just gone
        continue
  return total


def fork(run: Run) -> dict[str, Any] | None:
  """Parent and fork over the same frames; None for a run that is no fork."""
  origin = values.mapping(run.config, "fork")
  start = origin.get("from_frame")
  if not values.is_number(start) or not run.rows:
    return None
  end = run.rows[-1]["t"]
  past = [row for row in run.parent_rows if start <= row["t"] <= end]
  there = values.mapping(origin, "flags")
  return {
    "start": start,
    "parent": origin.get("parent"),
    "changes": [
      (name, value, there.get(name))
      for name, value in run.flags.items()
      if name != "workdir" and value != there.get(name)
    ],
    "rows": [_totals("parent", past), _totals("fork", run.rows)],
  }


def _totals(name, rows):
  judged = [x for row in rows if values.is_number(x := row.get("eval_miou"))]
  keys = [row for row in rows if row.get("is_key")]
  updates = (row.get("num_updates") for row in keys)
  return {
    "name": name,
    "miou": sum(judged) / len(judged) if judged else None,
    "keys": len(keys),
    "updates": sum(x for x in updates if values.is_number(x)),
    "frames": len(rows),
  }


def settings(run: Run) -> dict[str, dict[str, Any]]:
  """Flags, stream and versions, of those that are known."""
  versions = values.mapping(run.config, "versions")
  devices = run.config.get("devices")
  if isinstance(devices, list):
    versions = {**versions, "devices": ", ".join(map(str, devices))}
  stream = values.mapping(run.config, "stream")
  parts = {"Flags": run.flags, "Stream": stream, "Versions": versions}
  return {title: part for title, part in parts.items() if part}
