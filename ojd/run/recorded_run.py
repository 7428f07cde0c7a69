"""A recorded run: the flags, the metrics and the log of a workdir."""

import dataclasses
import itertools
import pathlib
import typing
from typing import Any, NamedTuple

from ojd import labels
from ojd.errors import UserError
from ojd.run import build, report, trajectory, workdir
from ojd.run import checkpoint as checkpoint_lib
from ojd.run import config as config_lib
from ojd.run.config import RunConfig
from ojd.types import Labels


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


def read(path: pathlib.Path) -> RecordedRun:
  """Reads a workdir; a UserError where it holds no run to replay."""
  if not (path / workdir.CONFIG).is_file():
    raise UserError(f"--workdir={path} holds no run")
  description = workdir.read_config(path)
  try:
    config = _config(description["flags"], path)
    names = tuple(map(str, description["class_names"]))
    members = tuple(tuple(map(str, m)) for m in description["class_members"])
    fork = description.get("fork")
    if len(names) != len(members) or len(names) < 2:
      raise ValueError("classes without members")
    if fork is not None:
      int(fork["from_frame"]), int(fork["num_before"])
  except (KeyError, TypeError, ValueError):
    raise UserError(
      f"--workdir={path}: its {workdir.CONFIG} is damaged"
    ) from None
  config_lib.check(dataclasses.replace(config, init="random"))
  rows = report.read_metrics(path / workdir.METRICS)
  frames = [row["t"] for row in rows]
  if not rows or any(type(t) is not int for t in frames):
    raise UserError(f"--workdir={path}: no frame of this run is on record")
  if any(b <= a for a, b in itertools.pairwise([-1, *frames])):
    raise UserError(f"--workdir={path}: its {workdir.METRICS} is damaged")
  identity = workdir.log_identity(description)
  log = trajectory.Trajectory(path / workdir.TRAJECTORY, identity)
  groups = labels.known_groups(names, members)
  return RecordedRun(path, description, config, groups, rows, log)


def _config(flags, path):
  """The flags of config.json; ValueError unless each is of its type."""
  config = RunConfig(**flags)
  hints = typing.get_type_hints(RunConfig)
  for field in dataclasses.fields(config):
    value, hint = getattr(config, field.name), hints[field.name]
    kinds = typing.get_args(hint) or (hint,)
    is_whole = type(value) is int and float in kinds
    if not is_whole and type(value) not in kinds:
      raise ValueError(f"{field.name} is {value!r}")
  return dataclasses.replace(config, workdir=str(path))


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


def range_error(flag: str, t: int, run: RecordedRun) -> UserError:
  """That a frame is not one of the run's."""
  return UserError(f"--{flag}={t}: the run has {run.first} to {run.end - 1}")


def is_init_there(run: RecordedRun) -> bool:
  """Whether the student that it began with can still be made."""
  prepared = build.prepared_student(run.config)
  return _is_known(run.config.init) if prepared is None else prepared.is_file()


def _is_known(init):
  return init in config_lib.INITS or pathlib.Path(init).is_file()


def open_checkpointer(
  run: RecordedRun, job: build.Job
) -> checkpoint_lib.Checkpointer:
  """Its checkpoints, to be read."""
  return checkpoint_lib.Checkpointer(run.path, checkpoint_lib.abstract(job), {})


class LabelsByFrame:
  """The labels of a log by the frame that they are of."""

  def __init__(self, log: trajectory.Trajectory):
    self._log = log
    self._where: dict[int, tuple[str, int]] = {}
    for record in log:
      if record.kind == trajectory.FAILED:
        continue
      late = record.decision and record.decision.key_t
      frame = record.t if late is None else late
      self._where[frame] = record.kind, record.t

  def __contains__(self, t: int) -> bool:
    return t in self._where

  def get(self, t: int) -> Labels | None:
    """Labels of frame t; None where the teacher was not heard."""
    record = self._log.find(*self._where[t]) if t in self._where else None
    return None if record is None else record.labels()
