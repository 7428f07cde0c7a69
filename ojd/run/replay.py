"""Replays a run and compares the result with the record, bit for bit.

It compares the hash of the parameters, the decisions and the accuracies after
every key frame, the mIoU of every evaluated frame, and at every checkpoint all
arrays, including those of the optimizer.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ojd import labels as labels_lib
from ojd import metrics
from ojd.run import recorded_run, state_arrays, stats, workdir
from ojd.run.recorded_run import RecordedRun


class Difference(NamedTuple):
  """The array that differs the most between a checkpoint and the replay."""

  t: int  # of the checkpoint
  name: str
  size: float  # the largest difference of an element
  num_others: int  # other arrays that differ


class Divergence(NamedTuple):
  """The first frame that differs from the record."""

  t: int
  words: str  # the recorded values and the replayed ones
  leaf: str  # the first array of the student that differs; "" if none does
  num_leaves: int  # arrays that differ


class Replayed(NamedTuple):
  """The result of a replay."""

  start: recorded_run.Start
  end: int
  num_keys: int
  num_updates: int
  num_judged: int  # frames with a recorded mIoU
  num_checkpoints: int  # that were compared, array by array
  divergence: Divergence | None
  largest: Difference | None  # at a checkpoint
  miou_there: float  # recorded; mean over these frames
  miou_here: float  # replayed
  seconds: float
  seconds_live: float | None  # of the run itself for the same frames

  @property
  def is_equal(self) -> bool:
    """Whether everything that was compared is equal, bit for bit."""
    return self.divergence is None and self.largest is None


def replay(
  run: RecordedRun,
  from_frame: int | None = None,
  to_frame: int | None = None,
  *,
  progress_fn: Callable[[int, int], None] = lambda done, total: None,
  note_fn: Callable[[str], None] = lambda note: None,
) -> Replayed:
  """Replays a run from the checkpoint nearest to a frame.

  Args:
    run: from `recorded_run.read`.
    from_frame: the first frame that is wanted; None for the run's first.
    to_frame: the last one; None for the run's last.
    progress_fn: called with the frames done and their total.
    note_fn: called with the reason if a checkpoint cannot be used.
  """
  first, end = recorded_run.frame_range(run, from_frame, to_frame)
  job, checkpointer, executor = recorded_run.open_again(run)
  with contextlib.closing(checkpointer):
    start = recorded_run.begin(run, checkpointer, executor, first, note_fn)
    comparison = _Comparison(run, job, checkpointer, start, end)
    begun = time.perf_counter()
    for step in recorded_run.frames(run, job, executor, start, end):
      comparison.add(step)
      progress_fn(step.sample.t + 1 - start.t, end - start.t)
    return comparison.result(time.perf_counter() - begun)


def replay_workdir(
  workdir: pathlib.Path | str,
  from_frame: int | None = None,
  to_frame: int | None = None,
) -> Replayed:
  """Replays the run in a workdir and compares the result bit for bit.

  Args:
    workdir: of a run.
    from_frame: the first frame that is wanted; None for the run's first.
    to_frame: the last one; None for the run's last.

  Returns:
    The result. `is_equal` says whether everything is the same, `divergence`
    which frame differs first.
  """
  run = recorded_run.read(pathlib.Path(workdir).expanduser())
  return replay(run, from_frame, to_frame)


class _Comparison:
  """Compares each replayed frame with the record and collects the result."""

  def __init__(self, run, job, checkpointer, start, end):
    self._run, self._job, self._checkpointer = run, job, checkpointer
    self._start, self._end = start, end
    self._rows = {row["t"]: row for row in run.rows}
    self._labels = recorded_run.LabelsByFrame(run.log)
    self._snapshots = [t for t in checkpointer.steps() if start.t < t <= end]
    self._divergence: Divergence | None = None
    self._largest: Difference | None = None
    self._num_keys = self._num_updates = self._num_snapshots = 0
    self._mious: list[tuple[float, float]] = []

  def add(self, step: recorded_run.Step):
    if step.record is not None:
      self._compare_key(step)
    self._compare_frame(step)
    # Unreadable frames are skipped, so the next frame may be later than t + 1.
    while self._snapshots and self._snapshots[0] <= step.sample.t + 1:
      self._compare_snapshot(self._snapshots.pop(0), step)

  def _diverge(self, t, words, leaf="", num_leaves=0):
    if self._divergence is None:
      self._divergence = Divergence(t, words, leaf, num_leaves)

  def _compare_key(self, step):
    there = step.record.decision
    self._num_keys += 1
    self._num_updates += there.num_updates
    params = state_arrays.parameters(step.state)
    marks = state_arrays.hashes(params)
    if marks.digest != there.params_hash:
      hashes = state_arrays.Hashes(there.params_hash, there.leaf_hashes)
      names = state_arrays.differing(params, marks, hashes)
      words = _differences(there, step.info) or "only the parameters differ"
      leaf = names[0] if names else ""
      self._diverge(step.sample.t, words, leaf, len(names))
    elif words := _differences(there, step.info):
      self._diverge(step.sample.t, words)

  def _compare_frame(self, step):
    """Compares the mIoU of a frame, if its own labels were the reference."""
    row = self._rows.get(step.sample.t, {})
    there = row.get("eval_miou")
    if there is None or "eval_t" in row:
      return
    expected = self._expected(step)
    if expected is None:
      return
    here = metrics.run_miou(
      metrics.confusion_matrix(
        expected, step.classes, len(self._run.groups.names)
      )
    )
    self._mious.append((there, here))
    if here != there:
      self._diverge(step.sample.t, f"mIoU {there} recorded, {here} replayed")

  def _expected(self, step):
    groups = self._job.truth_groups
    if groups is not None:
      return labels_lib.regrouped(groups, step.sample.truth)
    labels = self._labels.get(step.sample.t)
    return None if labels is None else np.asarray(labels.classes)

  def _compare_snapshot(self, t, step):
    snapshot, _ = self._checkpointer.latest(at_most=t)
    if snapshot is None or snapshot.t != t or t != step.sample.t + 1:
      return
    self._num_snapshots += 1
    found = _largest_difference(t, snapshot.state, step.state)
    if found and (self._largest is None or found.size > self._largest.size):
      self._largest = found

  def result(self, seconds):
    mean = np.mean(self._mious, 0) if self._mious else (np.nan, np.nan)
    num_frames = sum(self._start.t <= t < self._end for t in self._rows)
    return Replayed(
      start=self._start._replace(state=None),  # already consumed
      end=self._end,
      num_keys=self._num_keys,
      num_updates=self._num_updates,
      num_judged=len(self._mious),
      num_checkpoints=self._num_snapshots,
      divergence=self._divergence,
      largest=self._largest,
      miou_there=float(mean[0]),
      miou_here=float(mean[1]),
      seconds=seconds,
      seconds_live=_seconds_live(self._run, num_frames),
    )


def _differences(there, info):
  """The recorded and replayed numbers of a key frame that differ, as text."""
  names = ("num_updates", "num_rolled_back", "stride")
  floats = ("miou_before", "miou_after", "loss", "grad_norm")
  return ", ".join(
    f"{name} {getattr(there, name)} recorded, {getattr(info, name)} replayed"
    for name in (*names, *floats)
    if not _is_same(getattr(there, name), getattr(info, name))
  )


def _is_same(a, b):
  return a == b or (a != a and b != b)  # NaN equals NaN here


def _largest_difference(t, there, here) -> Difference | None:
  there, here = state_arrays.to_numpy(there), state_arrays.to_numpy(here)
  sizes = {
    name: float(np.abs(there[name].astype(np.float64) - here[name]).max())
    for name in sorted(there)
    if there[name].tobytes() != here[name].tobytes()
  }
  if not sizes:
    return None
  # NaN counts as the largest difference.
  name = max(sizes, key=lambda n: np.nan_to_num(sizes[n], nan=np.inf))
  return Difference(t, name, sizes[name], len(sizes) - 1)


def _seconds_live(run, num_frames):
  """Seconds of the run itself, with its teacher, for this many frames."""
  summary = workdir.read_summary(run.path)
  if not summary or not summary["num_frames"]:
    return None
  stages = stats.Stages()
  stages.restore(summary["seconds"], dict.fromkeys(summary["seconds"], 1))
  work = stages.seconds_of_method()
  return work * num_frames / summary["num_frames"]


def machine_differences(run: RecordedRun) -> list[str]:
  """Differences between the run's machine and packages and the current ones."""
  names = ("python", "jax", "jaxlib", "flax", "optax")
  names += ("opencv-python-headless",)
  here = workdir.versions()
  there = run.description.get("versions", {})
  words = [
    f"{name} {there.get(name)}, here {here[name]}"
    for name in names
    if there.get(name) != here[name]
  ]
  devices = [str(device) for device in jax.devices()]
  if run.description.get("devices") != devices:
    words.append(f"devices {run.description.get('devices')}, here {devices}")
  return words
