"""A recorded run: the content of a workdir, and the replay of its frames.

A replay reads from the log which frames are key frames and which labels the
student learned from there. So a run with late labels can be replayed too, and a
replay that diverges on another machine still goes frame by frame with the run.
"""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from ojd import labels
from ojd.distill import State
from ojd.errors import UserError
from ojd.formats import run_files
from ojd.run import build, state_arrays, trajectory, workdir
from ojd.run import checkpoint as checkpoint_lib
from ojd.run import config as config_lib
from ojd.run.config import RunConfig
from ojd.run.executor import Executor
from ojd.run.network_source import ReplayedUplink
from ojd.run.trajectory import Record
from ojd.streams import prefetch
from ojd.systems import streamed
from ojd.types import Labels, Sample, StepInfo


class _Origin(msgspec.Struct):
  """Where a fork begins."""

  from_frame: int
  num_before: int


class _Description(msgspec.Struct):
  """The part of config.json that a replay needs."""

  flags: RunConfig
  class_names: tuple[str, ...]
  class_members: tuple[tuple[str, ...], ...]
  fork: _Origin | None = None


class RecordedRun(NamedTuple):
  """The content of a workdir, without its checkpoints."""

  path: pathlib.Path
  description: dict[str, Any]  # config.json
  config: RunConfig
  groups: labels.ClassGroups  # the recorded classes; needs no teacher
  rows: list[dict[str, Any]]  # of metrics.jsonl, in order
  log: trajectory.Trajectory

  @property
  def first(self) -> int:
    """Its first frame: 0, unless the run is a fork."""
    fork = self.description.get("fork")
    return fork["from_frame"] if fork else 0

  @property
  def end(self) -> int:
    """The frame after its last frame."""
    return self.rows[-1]["t"] + 1

  @property
  def num_before(self) -> int:
    """Frames that its system had seen before its first frame."""
    fork = self.description.get("fork")
    return fork["num_before"] if fork else 0

  def num_seen(self, t: int) -> int:
    """Frames that its system has seen before frame t."""
    return self.num_before + sum(row["t"] < t for row in self.rows)


def read(path: pathlib.Path) -> RecordedRun:
  """Reads a workdir; a UserError if it holds no run that can be replayed."""
  if not (path / workdir.CONFIG).is_file():
    raise UserError(f"--workdir={path} holds no run")
  description = workdir.read_config(path)
  try:
    found = msgspec.convert(description, _Description)
    # msgspec ignores names that the dataclass does not have; this refuses them.
    dataclasses.replace(found.flags, **description["flags"])
    names, members = found.class_names, found.class_members
    if len(names) != len(members) or len(names) < 2:
      raise ValueError("classes without members")
  except (TypeError, ValueError):
    raise UserError(
      f"--workdir={path}: its {workdir.CONFIG} is damaged"
    ) from None
  config = dataclasses.replace(found.flags, workdir=str(path))
  config_lib.check(dataclasses.replace(config, init="random"))
  rows = run_files.read_metrics(path / workdir.METRICS)
  frames = [row["t"] for row in rows]
  if not rows or any(type(t) is not int for t in frames):
    raise UserError(f"--workdir={path}: the run has no frames to replay")
  if any(b <= a for a, b in itertools.pairwise([-1, *frames])):
    raise UserError(f"--workdir={path}: its {workdir.METRICS} is damaged")
  identity = workdir.log_identity(description)
  log = trajectory.Trajectory(path / workdir.TRAJECTORY, identity)
  groups = labels.known_groups(names, members)
  return RecordedRun(path, description, config, groups, rows, log)


def frame_range(
  run: RecordedRun, from_frame: int | None, to_frame: int | None
) -> tuple[int, int]:
  """The first wanted frame and the one after the last; None: all of the run.

  Raises:
    UserError: the run has no such frames.
  """
  first = run.first if from_frame is None else from_frame
  end = run.end if to_frame is None else to_frame + 1
  if not run.first <= first < run.end:
    raise range_error("from_frame", first, run)
  if not first < end <= run.end:
    raise range_error("to_frame", end - 1, run)
  return first, end


def range_error(flag: str, t: int, run: RecordedRun) -> UserError:
  """The error for a frame that is not in the run."""
  return UserError(f"--{flag}={t}: the run has {run.first} to {run.end - 1}")


class LabelsByFrame:
  """The labels of a log, by their frame."""

  def __init__(self, log: trajectory.Trajectory):
    self._log = log
    self._where: dict[int, tuple[str, int]] = {}
    for record in log:
      if record.kind != trajectory.FAILED:
        self._where[record.frame_t] = record.kind, record.t

  def __contains__(self, t: int) -> bool:
    return t in self._where

  def get(self, t: int) -> Labels | None:
    """The labels of frame t; None if the log has none."""
    record = self._log.find(*self._where[t]) if t in self._where else None
    return None if record is None else record.labels()


def open_job(run: RecordedRun, config: RunConfig | None = None) -> build.Job:
  """Opens the stream and the system of a run, without its teacher.

  Args:
    run: from `read`.
    config: other flags for the same stream and classes; None for its own.
  """
  config = config or run.config
  if not _is_known(config.init):
    # A checkpoint or the prepared student replaces the missing file.
    config = dataclasses.replace(config, init="random")
  gone = UserError(f"--workdir={run.path}: a live stream cannot be replayed")
  if run.description["stream"].get("kind") == "live":
    raise gone
  job = build.make_job_without_teacher(config, run.groups)
  if job.stream.spec.is_live:  # also if only a part of the stream is live
    raise gone
  if job.stream.spec.identity != run.description.get("stream"):
    raise UserError(
      f"--workdir={run.path}: the frames of --stream={run.config.stream} have "
      "changed since the run"
    )
  return job


def _is_known(init):
  return init in config_lib.INITS or pathlib.Path(init).is_file()


def open_again(
  run: RecordedRun,
) -> tuple[build.Job, checkpoint_lib.Checkpointer, Executor]:
  """Opens the job, checkpoints and compiled system of a recorded run."""
  job = open_job(run)
  is_apart = run.config.async_teacher or bool(run.config.link)
  executor = build.make_executor(job, with_readonly=is_apart)
  snapshots = checkpoint_lib.abstract(job)
  return job, checkpoint_lib.Checkpointer(run.path, snapshots, {}), executor


class Start(NamedTuple):
  """The state that a replay starts from."""

  t: int  # the next frame
  state: State
  is_checkpoint: bool  # False: the beginning of the run


def begin(
  run: RecordedRun,
  checkpointer: checkpoint_lib.Checkpointer,
  executor: Executor,
  t: int,
  note_fn: Callable[[str], None] = lambda note: None,
) -> Start:
  """The nearest checkpoint at or before frame t, else the run's beginning.

  Args:
    run: from `read`.
    checkpointer: its checkpoints.
    executor: its system.
    t: the first frame that is wanted.
    note_fn: called with the reason if a nearer checkpoint cannot be used.
  """
  if not run.first <= t <= run.end:
    raise range_error("from_frame", t, run)
  snapshot, problems = checkpointer.latest(at_most=t)
  for problem in problems:
    note_fn(f"skipped a checkpoint: {problem}")
  if snapshot is not None and snapshot.t >= run.first:
    return Start(snapshot.t, snapshot.state, is_checkpoint=True)
  if run.first:
    raise UserError(
      f"--workdir={run.path}: the fork's first checkpoint, of frame "
      f"{run.first}, is missing"
    )
  prepared = build.prepared_student(run.config)
  is_there = prepared.is_file() if prepared else _is_known(run.config.init)
  if not is_there:
    raise UserError(
      f"--workdir={run.path} began with "
      f"{prepared or f'--init={run.config.init}'}, which is missing, and "
      f"has no checkpoint at or before frame {t}"
    )
  return Start(0, executor.first_state(), is_checkpoint=False)


def state_before(
  run: RecordedRun, t: int, note_fn: Callable[[str], None]
) -> tuple[build.Job, State]:
  """The job of a run, and its state before frame t.

  Args:
    run: from `read`.
    t: the next frame.
    note_fn: called with what is unusual in the replay up to there.
  """
  job, checkpointer, executor = open_again(run)
  with contextlib.closing(checkpointer):
    start = begin(run, checkpointer, executor, t, note_fn)
  state = start.state
  for step in frames(run, job, executor, start, t):
    state = step.state
    if step.has_diverged:
      note_fn(f"frame {step.sample.t} differs from the recorded run")
  return job, jax.tree.map(jnp.copy, state)


class Step(NamedTuple):
  """One frame, replayed."""

  sample: Sample
  classes: np.ndarray  # [H, W] uint8, the student's
  record: Record | None  # of a key frame: the recorded update
  info: StepInfo | None  # of a key frame: the replayed update, as plain numbers
  state: State  # after the frame; valid until the next step

  @property
  def has_diverged(self) -> bool:
    """Whether the parameters after a key frame differ from the record."""
    if self.record is None:
      return False
    here = state_arrays.hashes(state_arrays.parameters(self.state))
    return here.digest != self.record.decision.params_hash


def frames(
  run: RecordedRun,
  job: build.Job,
  executor: Executor,
  start: Start,
  end: int,
) -> Iterator[Step]:
  """Replays the readable frames from a start up to, but without, `end`.

  This consumes the state of the start and of every step.
  """
  keys = _Keys(run, start.t)
  link = None
  if run.config.link:
    link = ReplayedUplink(run.rows, job, start.t)
  executor.begin(start.state)
  samples = job.stream.read(keys.first_needed(start.t))
  with contextlib.closing(prefetch.readable(samples, end)) as samples:
    for sample in samples:
      keys.see(sample)
      if sample.t < start.t:  # only needed for labels that arrive later
        continue
      record, info = keys.record(sample.t), None
      seen = sample if link is None else link.receive(sample, executor.state)
      if record is None:
        classes = executor.predict(sample.frame)
      else:
        frame = keys.frame(record, seen)
        answer = None
        if link is not None:  # the device does not have the update yet
          answer = np.array(executor.predict_readonly(sample.frame))
        classes, info = executor.learn(frame, record.labels())
        if record.decision.key_t is not None:
          answer = executor.predict_readonly(sample.frame)
        elif record.decision.delay is not None:
          delay = record.decision.delay
          executor.replace(streamed.postpone(executor.state, delay))
        classes = classes if answer is None else answer
      yield Step(sample, classes, record, info, executor.state)


class _Keys:
  """The records of a run's key frames, and the labeled frames."""

  def __init__(self, run, start):
    self._log = run.log
    self._times = {
      t for t, kind in run.log.records if kind == trajectory.KEY and t >= start
    }
    # Frames whose labels arrive later.
    self._late: dict[int, Sample | None] = {}
    if run.config.async_teacher:
      frames_t = (self.record(t).decision.key_t for t in self._times)
      self._late = {t: None for t in frames_t if t is not None}

  def first_needed(self, start):
    return min([start, *self._late])

  def see(self, sample):
    """Keeps a frame whose labels arrive later."""
    if sample.t in self._late:
      self._late[sample.t] = sample

  def record(self, t):
    return self._log.find(trajectory.KEY, t) if t in self._times else None

  def frame(self, record, now):
    """The frame that the labels are of; an older one is available only once."""
    key_t = record.decision.key_t
    sample = now if key_t is None else self._late.pop(key_t, None)
    if sample is None:
      raise UserError(f"key frame {key_t} of the run cannot be read any more")
    return sample.frame
