"""Builds a run from its config: stream, teacher, student, compiled system."""

import dataclasses
import pathlib
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from ojd import distill, labels, systems, updates
from ojd.errors import UserError
from ojd.models import pretrained
from ojd.models import student as student_lib
from ojd.models.delta import files
from ojd.run import config as config_lib
from ojd.run import workdir
from ojd.run.config import INITS, RunConfig, settled
from ojd.run.executor import Executor
from ojd.streams import base as streams
from ojd.streams import compose
from ojd.systems.delta import check_trained
from ojd.systems.offline_oracle import STUDENT
from ojd.systems.streamed import streamed
from ojd.teachers import base as teachers
from ojd.teachers import labelers, process


class Job(NamedTuple):
  """Everything that a run needs and that stays constant during it."""

  config: RunConfig
  stream: streams.Stream
  # With --teacher_process the worker, which is also the labeler. None where
  # recorded labels replace the teacher.
  teacher: teachers.Teacher | process.InProcess | None
  groups: labels.ClassGroups  # of the teacher's classes
  truth_groups: labels.ClassGroups | None  # of the stream's own classes
  system: distill.System
  student: student_lib.Student | None = None  # of the system

  def close(self) -> None:
    """Ends the teacher's process, if it has one."""
    if isinstance(self.teacher, process.InProcess):
      self.teacher.close()


def make_job(config: RunConfig) -> Job:
  """Opens stream and teacher and builds the system of a checked config."""
  stream = open_stream(config)
  if method_of(config).prepare is not None:
    num_frames_of(config, stream.spec)
  teacher = open_teacher(config, stream.spec)
  try:
    return make_job_of(config, stream, teacher)
  except BaseException:
    if isinstance(teacher, process.InProcess):
      teacher.close()
    raise


def open_stream(config: RunConfig) -> streams.Stream:
  """Opens the stream of a config and selects the frames that it asks for."""
  stream = streams.open_stream(config.stream, config.height, config.width)
  return compose.window(stream, config.start_frame, config.every)


def num_frames_of(config: RunConfig, spec: streams.StreamSpec) -> int:
  """The number of frames of a run; a UserError if it is unknown."""
  address = streams.without_password(config.stream)
  name = f"--system={config.system}"
  if spec.is_live:
    raise UserError(
      f"{name} trains on the whole stream before the run, and "
      f"--stream={address} is live: record it first"
    )
  limits = [n for n in (spec.num_frames, config.num_frames) if n is not None]
  if not limits:
    raise UserError(
      f"{name} trains on the whole stream before the run, and the length of "
      f"--stream={address} is unknown: give --num_frames"
    )
  return min(limits)


def make_job_of(
  config: RunConfig,
  stream: streams.Stream,
  teacher: teachers.Teacher | process.InProcess,
) -> Job:
  """Builds the job of a config from an open stream and an open teacher."""
  groups = _parse_groups(config, stream.spec, teacher)
  return _assemble(config, stream, teacher, groups)


def _parse_groups(config, spec, teacher):
  classes = config.classes.strip() or spec.default_classes
  return labels.parse_groups(classes, teacher.class_names)


def _assemble(config, stream, teacher, groups):
  config = settled(config)
  truth_groups = _truth_groups(groups, stream.spec.class_names)
  student = first_student(config, groups)
  system = make_system(config, student, stream.spec)
  return Job(config, stream, teacher, groups, truth_groups, system, student)


def make_job_without_teacher(
  config: RunConfig, groups: labels.ClassGroups
) -> Job:
  """Builds a job without a teacher, from recorded classes."""
  stream = open_stream(config)
  return _assemble(config, stream, None, groups)


def open_labeler(job: Job) -> labelers.Labeler:
  """Opens the teacher of a job made without one; returns its labeler."""
  teacher = open_teacher(job.config, job.stream.spec)
  groups = _parse_groups(job.config, job.stream.spec, teacher)
  if (groups.names, groups.members) != (job.groups.names, job.groups.members):
    raise UserError(
      f"--teacher={job.config.teacher} has other classes than the recorded run"
    )
  return make_labeler(job._replace(teacher=teacher, groups=groups))


def _truth_groups(groups, truth_names):
  """Groups over the stream's own classes; None if they share no name."""
  wanted = {name for members in groups.members for name in members}
  if wanted.isdisjoint(truth_names):
    return None
  return labels.match_groups(groups, truth_names)


def make_teacher(
  config: RunConfig, spec: streams.StreamSpec
) -> teachers.Teacher:
  """Makes the teacher of a config, for the frames of a stream."""
  return teachers.make_teacher(config.teacher, teacher_context(config, spec))


def open_teacher(
  config: RunConfig, spec: streams.StreamSpec
) -> teachers.Teacher | process.InProcess:
  """Opens the teacher in this process, or in a process of its own."""
  if not config.teacher_process:
    return make_teacher(config, spec)
  return process.InProcess(
    config.teacher,
    teacher_context(config, spec),
    timeout=config.teacher_timeout,
  )


def teacher_context(
  config: RunConfig, spec: streams.StreamSpec
) -> teachers.Context:
  """What the teacher needs to know of the stream."""
  return teachers.Context(
    truth_names=spec.class_names,
    height=spec.height,
    width=spec.width,
    stream_identity=spec.identity,
  )


def make_labeler(job: Job) -> labelers.Labeler:
  """The labeler of a job: in step, in a thread, or in a process."""
  if isinstance(job.teacher, process.InProcess):
    job.teacher.set_groups(job.groups)
    return job.teacher
  make = labelers.InThread if job.config.async_teacher else labelers.InStep
  return make(job.teacher, job.groups)


def prepared_student(config: RunConfig) -> pathlib.Path | None:
  """The file of the student that the method trains before the run, if any."""
  if method_of(config).prepare is None:
    return None
  folder = workdir.expand(config.workdir) / workdir.PREPARED
  return folder / STUDENT


def first_student(
  config: RunConfig, groups: labels.ClassGroups
) -> student_lib.Student:
  """The student at the start of the run: the prepared one if there is one."""
  path = prepared_student(config)
  if path is not None and path.is_file():
    config = dataclasses.replace(config, init=str(path))
  return make_student(config, groups)


def make_student(
  config: RunConfig, groups: labels.ClassGroups
) -> student_lib.Student:
  """Makes the student for these classes, with the parameters of `--init`."""
  student = student_lib.create(
    config.model, len(groups.names), precision=config.precision
  )
  init = config.init
  if init == "random":
    return student
  given, _ = files.split(pretrained.load(init_path(config)))
  there = str(given.about.get("model", config.model))
  name = student_lib.bind(config.model).name
  if there.split(":")[0] in student_lib.MODELS.keys() - {name}:
    raise UserError(
      f"--init={init} is for --model={there}, not for --model={config.model}"
    )
  return pretrained.start_from(student, given, groups)


def init_path(config: RunConfig) -> pathlib.Path:
  """The file of the initial parameters, unless they are random."""
  if config.init == "bundled":
    return pretrained.BUNDLED[student_lib.bind(config.model).name]
  return pathlib.Path(config.init)


def make_system(
  config: RunConfig,
  student: student_lib.Student,
  spec: streams.StreamSpec,
  values: Mapping[str, Any] = types.MappingProxyType({}),
) -> distill.System:
  """Makes the system of a config with a given student and stream.

  Args:
    config: of the run.
    student: any.
    spec: of the stream.
    values: options of the system and of its gradient step that override the
      config's, for instance traced ones.
  """
  bound, update = config_lib.bound_system(config), None
  tx = optax.identity()
  if (update := config_lib.bound_update(config)) is not None:
    tx = _with_values(update, values).make()
  bound = _with_values(bound, values)
  if "flow" in bound.options:
    flow = config_lib.make_flow(bound.options["flow"])
    bound = _with_values(bound, {"flow": flow})
  if (trained := _trained_changes(config)) is not None:
    check_trained(bound)
  limits = [n for n in (spec.num_frames, config.num_frames) if n is not None]
  system = systems.make(
    bound,
    student,
    tx,
    fps=spec.fps,
    num_frames=min(limits, default=None),
    trained=trained,
  )
  if not config.link:
    return system
  return streamed(system, first_interval(config, spec))


def _with_values(bound, values):
  """Overrides those options that `bound` has; ignores the others."""
  known = {n: x for n, x in values.items() if n in bound.options}
  return bound._replace(options={**bound.options, **known})


def _trained_changes(config: RunConfig) -> files.Trained | None:
  """The trained changes in the file of `--init`; None if it has none."""
  if config.init in INITS or not _has_changes(config):
    return None
  return files.split(pretrained.load(init_path(config)))[1]


def _has_changes(config):
  """Whether the config's system computes changes from frame to frame."""
  return "refresh_every" in config_lib.bound_system(config).options


def program_key(job: Job) -> tuple[Any, ...]:
  """A key that is equal for jobs whose systems compile to the same programs.

  Such jobs may differ in stream, workdir and initial parameters.
  """
  config, spec = job.config, job.stream.spec
  bound, timing = config_lib.bound_system(config), ()
  if "horizon" in bound.options:
    limits = (spec.num_frames, config.num_frames)
    frames = [n for n in limits if n is not None]
    horizon = bound.options["horizon"]
    timing = spec.fps, min([horizon, *(n / spec.fps for n in frames)])
  # The trained changes in a file are constants of the program.
  init = config.init if _has_changes(config) else ""
  return spec.height, spec.width, len(job.groups.names), timing, init


def first_interval(config: RunConfig, spec: streams.StreamSpec) -> int:
  """The first stride, which both ends of a network know before they start."""
  bound = config_lib.bound_system(config)
  return bound.row.remote.first_interval(bound.options, spec.fps)


def trains_of(
  config: RunConfig,
) -> Callable[[Collection[str]], Collection[str]] | None:
  """The function that selects which parameters are trained; None: all."""
  update = config_lib.bound_update(config)
  tx = optax.identity() if update is None else update.make()
  return updates.as_step(tx).trains


def method_of(config: RunConfig) -> systems.Method:
  """The row of a config's system in the table of methods."""
  return config_lib.bound_system(config).row


def abstract_state(job: Job) -> distill.State:
  """Types and shapes of the state of a job's system."""
  spec = job.stream.spec
  frame = jax.ShapeDtypeStruct((spec.height, spec.width, 3), np.uint8)
  return jax.eval_shape(job.system.init, jax.random.key(0), frame)


def make_executor(job: Job, *, with_readonly: bool = False) -> Executor:
  """Compiles the system of a job for its frame size."""
  spec = job.stream.spec
  return Executor(
    *(job.system, spec.height, spec.width, job.config.seed),
    with_readonly=with_readonly,
  )
