"""A recorded run: what a workdir holds, and its frames gone through again.

Which frame is a key frame, and what was learned on it, is read from the log and
not decided anew: so a run whose labels came late can be replayed too, and one
that diverges, on another machine, stays beside the old one frame by frame.
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
  """What is needed of config.json."""

  flags: RunConfig
  class_names: tuple[str, ...]
  class_members: tuple[tuple[str, ...], ...]
  fork: _Origin | None = None


class RecordedRun(NamedTuple):
  """What a workdir holds, but for its checkpoints."""

  path: pathlib.Path
  description: dict[str, Any]  # config.json
  config: RunConfig
  groups: labels.ClassGroups  # of no teacher's classes
  rows: list[dict[str, Any]]  # of metrics.jsonl, in order
  log: trajectory.Trajectory

  @property
  def first(self) -> int:
    """Its first frame: that of the stream, unless it is a fork."""
    fork = self.description.get("fork")
    return fork["from_frame"] if fork else 0

  @property
  def end(self) -> int:
    """The frame after its last one."""
    return self.rows[-1]["t"] + 1

  @property
  def num_before(self) -> int:
    """Frames that its system had seen before its first."""
    fork = self.description.get("fork")
    return fork["num_before"] if fork else 0

  def num_seen(self, t: int) -> int:
    """Frames that its system has seen before frame t."""
    return self.num_before + sum(row["t"] < t for row in self.rows)


def read(path: pathlib.Path) -> RecordedRun:
  """Reads a workdir; a UserError where it holds no run to replay."""
  if not (path / workdir.CONFIG).is_file():
    raise UserError(f"--workdir={path} holds no run")
  description = workdir.read_config(path)
  try:
    found = msgspec.convert(description, _Description)
    # A dataclass takes names that it does not know, and leaves them out.
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
    raise UserError(f"--workdir={path}: no frame of this run is on record")
  if any(b <= a for a, b in itertools.pairwise([-1, *frames])):
    raise UserError(f"--workdir={path}: its {workdir.METRICS} is damaged")
  identity = workdir.log_identity(description)
  log = trajectory.Trajectory(path / workdir.TRAJECTORY, identity)
  groups = labels.known_groups(names, members)
  return RecordedRun(path, description, config, groups, rows, log)


def frame_range(
  run: RecordedRun, from_frame: int | None, to_frame: int | None
) -> tuple[int, int]:
  """The first of the frames wanted, and that after the last; None: the run's.

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
  """That a frame is not one of the run's."""
  return UserError(f"--{flag}={t}: the run has {run.first} to {run.end - 1}")


class LabelsByFrame:
  """The labels of a log by the frame that they are of."""

  def __init__(self, log: trajectory.Trajectory):
    self._log = log
    self._where: dict[int, tuple[str, int]] = {}
    for record in log:
      if record.kind != trajectory.FAILED:
        self._where[record.frame_t] = record.kind, record.t

  def __contains__(self, t: int) -> bool:
    return t in self._where

  def get(self, t: int) -> Labels | None:
    """Labels of frame t; None where the teacher was not heard."""
    record = self._log.find(*self._where[t]) if t in self._where else None
    return None if record is None else record.labels()


def open_job(run: RecordedRun, config: RunConfig | None = None) -> build.Job:
  """Its stream and its system, without a teacher.

  Args:
    run: of `read`.
    config: other flags over the same stream and classes; None for its own.
  """
  config = config or run.config
  if not _is_known(config.init):
    # A state that is at hand takes its place, or the prepared student.
    config = dataclasses.replace(config, init="random")
  gone = UserError(f"--workdir={run.path}: a live stream cannot be replayed")
  if run.description["stream"].get("kind") == "live":
    raise gone
  job = build.make_job_without_teacher(config, run.groups)
  if job.stream.spec.is_live:  # a part of it
    raise gone
  if job.stream.spec.identity != run.description.get("stream"):
    raise UserError(
      f"--workdir={run.path}: the frames behind --stream={run.config.stream} "
      "are others now"
    )
  return job


def _is_known(init):
  return init in config_lib.INITS or pathlib.Path(init).is_file()


def open_again(
  run: RecordedRun,
) -> tuple[build.Job, checkpoint_lib.Checkpointer, Executor]:
  """Job, checkpoints and compiled system of a recorded run."""
  job = open_job(run)
  is_apart = run.config.async_teacher or bool(run.config.link)
  executor = build.make_executor(job, with_readonly=is_apart)
  snapshots = checkpoint_lib.abstract(job)
  return job, checkpoint_lib.Checkpointer(run.path, snapshots, {}), executor


class Start(NamedTuple):
  """Where the replay begins."""

  t: int  # the frame that comes next
  state: State
  is_checkpoint: bool  # else it is the beginning of the run


def begin(
  run: RecordedRun,
  checkpointer: checkpoint_lib.Checkpointer,
  executor: Executor,
  t: int,
  note_fn: Callable[[str], None] = lambda note: None,
) -> Start:
  """The nearest checkpoint at or before frame t, else the run's beginning.

  Args:
    run: of `read`.
    checkpointer: its checkpoints.
    executor: its system.
    t: the first frame that is wanted.
    note_fn: called with why a nearer checkpoint could not be taken.
  """
  if not run.first <= t <= run.end:
    raise range_error("from_frame", t, run)
  snapshot, problems = checkpointer.latest(at_most=t)
  for problem in problems:
    note_fn(f"passed over a checkpoint: {problem}")
  if snapshot is not None and snapshot.t >= run.first:
    return Start(snapshot.t, snapshot.state, is_checkpoint=True)
  if run.first:
    raise UserError(
      f"--workdir={run.path}: a fork, and the checkpoint that it began with, "
      f"that of frame {run.first}, is not there"
    )
  prepared = build.prepared_student(run.config)
  is_there = prepared.is_file() if prepared else _is_known(run.config.init)
  if not is_there:
    raise UserError(
      f"--workdir={run.path} began with "
      f"{prepared or f'--init={run.config.init}'}, which is not there, and no "
      f"checkpoint is at or before frame {t}"
    )
  return Start(0, executor.first_state(), is_checkpoint=False)


def state_before(
  run: RecordedRun, t: int, note_fn: Callable[[str], None]
) -> tuple[build.Job, State]:
  """The job of a run, and its state as it was before frame t.

  Args:
    run: of `read`.
    t: the frame that comes next.
    note_fn: called with what is unusual on the way there.
  """
  job, checkpointer, executor = open_again(run)
  with contextlib.closing(checkpointer):
    start = begin(run, checkpointer, executor, t, note_fn)
  state = start.state
  for step in frames(run, job, executor, start, t):
    state = step.state
    if step.has_diverged:
      note_fn(f"frame {step.sample.t} goes otherwise than it was recorded")
  return job, jax.tree.map(jnp.copy, state)


class Step(NamedTuple):
  """One frame, replayed."""

  sample: Sample
  classes: np.ndarray  # [H, W] uint8, the student's
  record: Record | None  # what was learned then, on a key frame
  info: StepInfo | None  # what was learned now, as plain numbers
  state: State  # afterwards; good until the next step

  @property
  def has_diverged(self) -> bool:
    """Whether a key frame left other parameters than those on record."""
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
  """Yields the frames from a start to one before `end`, unreadable ones not.

  The start's state is consumed, as is that of every step.
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
      if sample.t < start.t:  # asked about before, and learned from later
        continue
      record, info = keys.record(sample.t), None
      seen = sample if link is None else link.receive(sample, executor.state)
      if record is None:
        classes = executor.predict(sample.frame)
      else:
        frame = keys.frame(record, seen)
        answer = None
        if link is not None:  # before the device hears of it
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
  """The records of a run's key frames, and the frames that they are of."""

  def __init__(self, run, start):
    self._log = run.log
    self._times = {
      t for t, kind in run.log.records if kind == trajectory.KEY and t >= start
    }
    # Frames that are learned from later than they are seen.
    self._late: dict[int, Sample | None] = {}
    if run.config.async_teacher:
      frames_t = (self.record(t).decision.key_t for t in self._times)
      self._late = {t: None for t in frames_t if t is not None}

  def first_needed(self, start):
    return min([start, *self._late])

  def see(self, sample):
    """Keeps a frame that will be wanted again."""
    if sample.t in self._late:
      self._late[sample.t] = sample

  def record(self, t):
    return self._log.find(trajectory.KEY, t) if t in self._times else None

  def frame(self, record, now):
    """The frame that was learned from; a late one may be asked for once."""
    key_t = record.decision.key_t
    sample = now if key_t is None else self._late.pop(key_t, None)
    if sample is None:
      raise UserError(f"key frame {key_t} of the run cannot be read now")
    return sample.frame
