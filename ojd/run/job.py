"""From a config to the things that run: stream, teacher, system, jitted."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import distill, labels, systems, updates
from ojd.models import student as student_lib
from ojd.run.config import RunConfig
from ojd.streams import base as streams
from ojd.teachers import base as teachers
from ojd.types import Labels


class Job(NamedTuple):
  """Everything that a run needs and that does not change during it."""

  config: RunConfig
  stream: streams.Stream
  teacher: teachers.Teacher
  groups: labels.ClassGroups  # of the teacher's classes
  truth_groups: labels.ClassGroups | None  # of the stream's own, if it has any
  system: distill.System


class Compiled(NamedTuple):
  """A system for frames of one size, compiled; nothing compiles later."""

  init: Callable[[], distill.State]
  next_key: Callable[[distill.State], jax.Array]
  # Both consume the state given: what does not change is not copied.
  learn: Callable[..., Any]
  predict: Callable[..., Any]


def make_job(config: RunConfig) -> Job:
  """Opens stream and teacher and builds the system of a checked config."""
  stream = streams.open_stream(config.stream, config.height, config.width)
  truth_names = stream.spec.class_names
  teacher = make_teacher(config, stream.spec)
  classes = config.classes.strip() or stream.spec.default_classes
  groups = labels.parse_groups(classes, teacher.class_names)
  truth_groups = None
  if truth_names:
    truth_groups = labels.match_groups(groups, truth_names)
  model = student_lib.MODELS["jitnet"](num_classes=len(groups.names))
  system = make_system(config, student_lib.from_linen(model))
  return Job(config, stream, teacher, groups, truth_groups, system)


def make_teacher(
  config: RunConfig, spec: streams.StreamSpec
) -> teachers.Teacher:
  """The teacher of a config, told of the stream that it will see."""
  request = teachers.TeacherRequest(
    truth_names=spec.class_names,
    height=spec.height,
    width=spec.width,
    stream_identity=spec.identity,
    weights=config.teacher_weights,
    device=config.teacher_device,
  )
  return teachers.make_teacher(config.teacher, request)


def make_system(
  config: RunConfig, student: student_lib.Student
) -> distill.System:
  """The system of a config around any student."""
  variant = updates.VARIANTS[config.update]
  rate = config.learning_rate
  tx = variant.factory(variant.learning_rate if rate is None else rate)
  return systems.SYSTEMS[config.system](student, tx, config.settings)


def compile_system(system: distill.System, height, width, seed) -> Compiled:
  """Compiles the four functions ahead of time."""
  frame = jax.ShapeDtypeStruct((height, width, 3), np.uint8)
  classes = jax.ShapeDtypeStruct((height, width), np.uint8)
  weights = jax.ShapeDtypeStruct((height, width), np.float32)

  def init():
    # A network's parameters do not depend on what its first frame shows.
    return system.init(jax.random.key(seed), np.zeros(frame.shape, np.uint8))

  state = jax.eval_shape(init)
  learn = jax.jit(system.learn, donate_argnums=0)
  predict = jax.jit(system.predict, donate_argnums=0)
  return Compiled(
    init=jax.jit(init).lower().compile(),
    next_key=jax.jit(system.next_key).lower(state).compile(),
    learn=learn.lower(state, frame, Labels(classes, weights)).compile(),
    predict=predict.lower(state, frame).compile(),
  )
