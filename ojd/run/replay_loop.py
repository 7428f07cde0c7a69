"""Runs the frames of a recorded run again, with its labels and no teacher.

Which frame is a key frame, and what was learned on it, is read from the log and
not decided anew: so a run whose labels came late can be replayed too, and one
that diverges, on another machine, stays beside the old one frame by frame.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ojd.distill import State
from ojd.errors import UserError
from ojd.run import (
  build,
  recorded_run,
  state_arrays,
  trajectory,
)
from ojd.run import checkpoint as checkpoint_lib
from ojd.run.executor import Executor
from ojd.run.network_source import ReplayedUplink
from ojd.run.recorded_run import RecordedRun
from ojd.run.trajectory import Record
from ojd.streams import prefetch
from ojd.systems import streamed
from ojd.types import Sample, StepInfo


class Start(NamedTuple):
  """Where the replay begins."""

  t: int  # the frame that comes next
  state: State
  is_checkpoint: bool  # else it is the beginning of the run


class Step(NamedTuple):
  """One frame, replayed."""

  sample: Sample
  classes: np.ndarray  # [H, W] uint8, the student's
  record: Record | None  # what was learned then, on a key frame
  info: StepInfo | None  # what was learned now, as plain numbers
  state: State  # afterwards; good until the next step


def begin(
  run: RecordedRun,
  checkpointer: checkpoint_lib.Checkpointer,
  executor: Executor,
  t: int,
) -> tuple[Start, list[str]]:
  """The nearest checkpoint at or before frame t, else the run's beginning.

  Returns:
    The start, and why a nearer one could not be taken.
  """
  if not run.first <= t <= run.end:
    raise recorded_run.range_error("from_frame", t, run)
  snapshot, problems = checkpointer.latest(at_most=t)
  if snapshot is not None and snapshot.t >= run.first:
    return Start(snapshot.t, snapshot.state, is_checkpoint=True), problems
  if run.first:
    raise UserError(
      f"--workdir={run.path}: a fork, and the checkpoint that it began with, "
      f"that of frame {run.first}, is not there"
    )
  if not recorded_run.is_init_there(run):
    origin = build.prepared_student(run.config)
    origin = origin or f"--init={run.config.init}"
    raise UserError(
      f"--workdir={run.path} began with {origin}, which is not there, and no "
      f"checkpoint is at or before frame {t}"
    )
  return Start(0, executor.first_state(), is_checkpoint=False), problems


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
      for t in self._times:
        key_t = self.record(t).decision.key_t
        if key_t is not None:
          self._late[key_t] = None

  def first_needed(self, start):
    return min([start, *self._late])

  def see(self, sample):
    """Keeps a frame that will be wanted again."""
    if sample.t in self._late:
      self._late[sample.t] = sample

  def record(self, t):
    if t not in self._times:
      return None
    return self._log.find(trajectory.KEY, t)

  def frame(self, record, now):
    """The frame that was learned from; a late one may be asked for once."""
    key_t = record.decision.key_t
    sample = now if key_t is None else self._late.pop(key_t, None)
    if sample is None:
      raise UserError(f"key frame {key_t} of the run cannot be read now")
    return sample.frame


def has_diverged(step: Step) -> bool:
  """Whether a key frame left other parameters than those on record."""
  if step.record is None:
    return False
  here = state_arrays.hashes(state_arrays.parameters(step.state))
  return here.digest != step.record.decision.params_hash


def open_again(run: RecordedRun):
  """Job, checkpoints and compiled system of a recorded run."""
  job = recorded_run.open_job(run)
  is_apart = run.config.async_teacher or bool(run.config.link)
  executor = build.make_executor(job, with_readonly=is_apart)
  return job, recorded_run.open_checkpointer(run, job), executor
