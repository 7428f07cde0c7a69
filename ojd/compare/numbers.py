"""The results of one cell of a comparison, read from its workdir."""

import contextlib
import pathlib
from typing import NamedTuple

import numpy as np

from ojd.compare import measures
from ojd.formats import run_files
from ojd.report import values
from ojd.run import recorded_run, state_arrays, workdir

# Beside the run's own files.
FILE = "measures.json"
# Of a run over a link, and their names in its summary.
_OF_LINK = {
  **{n: n for n in ("up_kbps", "down_kbps", "mean_staleness")},
  "link_fps": "fps",
}
# What may be measured afterwards.
DAVIS, CHANGES, TEMPORAL = "davis", "changes", "temporal"
_MAX_KEYS = 64  # key frames on which changes are counted
_MAX_FILE = 1 << 16  # bytes


class Numbers(NamedTuple):
  """One run; None where something was not measured."""

  miou: float | None = None  # 0..1
  speedup_paper_model: float | None = None
  ms_paper_model: float | None = None  # a frame
  speedup_measured: float | None = None
  key_frame_fraction: float | None = None
  num_frames: float | None = None
  num_key_frames: float | None = None
  num_updates: float | None = None
  fps: float | None = None
  ms_update: float | None = None  # forward passes of key frames included
  region: float | None = None  # J of DAVIS, 0..1
  boundary: float | None = None  # F of DAVIS, 0..1
  bytes_per_key: float | None = None  # of parameters changed
  gmac_per_frame: float | None = None  # of the student's answers
  # From frame to frame, 0..1; those of the stream's own labels beside them.
  consistency: float | None = None
  flicker: float | None = None
  truth_consistency: float | None = None
  truth_flicker: float | None = None
  # Over a link, in seconds of the stream.
  up_kbps: float | None = None
  down_kbps: float | None = None
  mean_staleness: float | None = None  # frames until an update answers
  link_fps: float | None = None  # frames that a device gets through in one


def measure(path: pathlib.Path, wanted: frozenset[str]) -> None:
  """Writes what the run itself does not say into its folder, once.

  Args:
    path: the workdir of a finished run.
    wanted: of DAVIS, CHANGES and TEMPORAL.
  """
  known = workdir.read_json(path / FILE, _MAX_FILE) or {}
  missing = sorted(wanted - known.keys())
  for name in missing:
    known[name] = _MEASURES[name](path)
  if missing:
    workdir.write_json(path / FILE, known)


def are_measured(path: pathlib.Path, wanted: frozenset[str]) -> bool:
  """Whether `measure` would do nothing."""
  return wanted <= (workdir.read_json(path / FILE, _MAX_FILE) or {}).keys()


def read(path: pathlib.Path, wanted: frozenset[str] = frozenset()) -> Numbers:
  """The numbers of a finished run, of those to be measured the wanted ones."""
  summary = workdir.read_summary(path) or {}
  found = {n: summary[n] for n in Numbers._fields if n in summary}
  link = values.mapping(summary, "link")
  found |= {name: link.get(there) for name, there in _OF_LINK.items()}
  found["miou"] = values.mapping(summary, "miou").get("mean")
  measured = workdir.read_json(path / FILE, _MAX_FILE) or {}
  for name in wanted:
    found |= values.mapping(measured, name)
  found["ms_update"] = _ms_update(path)
  found["ms_paper_model"] = _ms_paper_model(summary)
  return Numbers(
    **{
      name: float(x)
      for name, x in found.items()
      if name in Numbers._fields and values.is_number(x)
    }
  )


def _ms_paper_model(summary):
  """Of the average frame, which a mean of speed-ups does not give."""
  teacher = values.mapping(summary, "paper_ms").get("teacher")
  speedup = summary.get("speedup_paper_model")
  are_known = all(map(values.is_number, (teacher, speedup)))
  return teacher / speedup if are_known and speedup > 0 else None


def _ms_update(path):
  """Time spent learning, by update."""
  spent = updates = 0.0
  for row in run_files.read_metrics(path / workdir.METRICS):
    count, ms = row.get("num_updates"), row.get("ms_learn")
    if values.is_number(count) and values.is_number(ms) and count:
      spent, updates = spent + ms, updates + count
  return spent / updates if updates else None


def _davis(path):
  found = measures.davis(path)
  return {"region": found.region, "boundary": found.boundary}


def _temporal(path):
  return measures.steadiness(path)._asdict()


def _changes(path):
  """Replays the run, and counts what differs after each key frame."""
  run = recorded_run.read(path)
  job, checkpointer, executor = recorded_run.open_again(run)
  with contextlib.closing(checkpointer):
    start = recorded_run.begin(run, checkpointer, executor, run.first)
  before, counts = _copy(start.state), []
  for step in recorded_run.frames(run, job, executor, start, run.end):
    if step.record is None:
      continue
    after = _copy(step.state)
    counts.append(changed_bytes(before, after))
    before = after
    if len(counts) == _MAX_KEYS:
      break
  return {"bytes_per_key": float(np.mean(counts)) if counts else None}


def _copy(state):
  """The parameters by name; a state is gone with its next step."""
  return {n: np.array(x) for n, x in state_arrays.parameters(state).items()}


def changed_bytes(
  before: dict[str, np.ndarray], after: dict[str, np.ndarray]
) -> int:
  """Bytes of all numbers that are not the same, whatever of them differs."""
  total = 0
  for name, old in before.items():
    new = after[name]
    differs = old.view(np.uint8) != new.view(np.uint8)
    by_number = differs.reshape(old.size, old.itemsize).any(1)
    total += int(np.count_nonzero(by_number)) * old.itemsize
  return total


_MEASURES = {DAVIS: _davis, CHANGES: _changes, TEMPORAL: _temporal}
