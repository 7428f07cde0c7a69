"""From what a person sets to the systems: a function a method.

All take the student, the gradient step and the settings; what a preset of a
method chooses comes as keywords.
"""

from typing import NamedTuple

from ojd.models import optical_flow
from ojd.models.delta import changes
from ojd.models.delta import skip as skip_lib
from ojd.models.delta.convert import convert
from ojd.systems import ams as ams_lib
from ojd.systems import baselines
from ojd.systems import delta as delta_lib
from ojd.systems import flow as flow_lib
from ojd.systems import jit as jit_lib
from ojd.systems import jit_flow as jit_flow_lib
from ojd.systems import jit_plus as jit_plus_lib
from ojd.systems import osvos as osvos_lib
from ojd.systems import shadowtutor as shadowtutor_lib

# Of the settings, those of methods that learn until they are accurate.
LEARNS = frozenset({"a_thresh", "u_max", "u_min", "norm"})
# Frames from one on which a network runs whole to the next, as published.
_DELTA_INTERVAL, _SKIP_INTERVAL = 10, 4


class Settings(NamedTuple):
  """What a person may set; each system takes what it has a use for."""

  a_thresh: float = 0.8
  delta_min: int = 8
  delta_max: int = 64
  u_max: int = 8
  u_min: int = 0
  norm: str = "frame"
  sampling_rate: float = 1.0
  train_period: float = 10.0
  horizon: float = 240.0
  iterations: int = 20
  batch_size: int = 8
  fps: float = 25.0  # of the stream
  flow: optical_flow.HostFlow = optical_flow.dis("medium")


def jit(student, tx, settings):
  """Algorithm 1."""
  return jit_lib.jit(
    student,
    tx,
    delta_min=settings.delta_min,
    delta_max=settings.delta_max,
    **_constants(settings),
  )


def shadowtutor(student, tx, settings):
  """ShadowTutor."""
  return shadowtutor_lib.shadowtutor(
    student,
    tx,
    delta_min=settings.delta_min,
    delta_max=settings.delta_max,
    **_constants(settings),
  )


def ams(student, tx, settings, **which):
  """Adaptive Model Streaming; `which` of its rates adapt."""
  timing = ams_lib.Timing(
    fps=settings.fps,
    sampling_rate=settings.sampling_rate,
    train_period=settings.train_period,
    horizon=settings.horizon,
  )
  return ams_lib.ams(
    student,
    tx,
    timing=timing._replace(**which),
    iterations=settings.iterations,
    batch_size=settings.batch_size,
  )


def jit_plus(student, tx, settings, **without):
  """`jit` with more, but for what it is `without`."""
  return jit_plus_lib.jit_plus(
    student,
    tx,
    delta_min=settings.delta_min,
    delta_max=settings.delta_max,
    extras=jit_plus_lib.EVERYTHING._replace(**without),
    **_constants(settings),
  )


def jit_flow(student, tx, settings, base):
  """`jit` or another as the base, with the flow."""
  base = base(student, tx, settings)
  return jit_flow_lib.jit_flow(student, tx, base, flow_fn=settings.flow)


def fixed(student, tx, settings):
  """`jit` at a fixed stride."""
  stride = settings.delta_min
  return jit_lib.fixed(student, tx, stride=stride, **_constants(settings))


def _constants(settings):
  return {name: getattr(settings, name) for name in LEARNS}


def frozen(student, tx, settings):
  """The student as it came."""
  del tx, settings  # nothing is ever updated
  return jit_lib.frozen(student)


def teacher(student, tx, settings):
  """The teacher on every frame."""
  del tx, settings  # there is no student
  return baselines.teacher(student.num_classes)


def copy_last(student, tx, settings):
  """The last labels."""
  del tx  # there is no student
  return baselines.copy_last(student.num_classes, stride=settings.delta_min)


def flow(student, tx, settings):
  """The last labels, carried along."""
  del tx  # there is no student
  return flow_lib.flow(
    student.num_classes, stride=settings.delta_min, flow_fn=settings.flow
  )


def osvos(student, tx, settings, mode):
  """One-shot lessons, of a mode."""
  return osvos_lib.osvos(student, tx, mode=mode, num_passes=settings.u_max)


def delta(student, tx, settings, base=jit, change=None):
  """Another as the base; between refreshes a change, or the best pairs."""
  change_of = changes.where_it_saves(changes.pair())
  if change is not None:
    change_of = lambda site: change
  net = convert(student, changes.rules(change_of))
  learner = base(student, tx, settings)
  return delta_lib.delta(net, learner, interval=_DELTA_INTERVAL)


def skip(student, tx, settings, base=jit, memory="reference"):
  """Another as the base; between refreshes only where something changed."""
  net = convert(student, skip_lib.skip(skip_lib.by_norm(), memory=memory))
  learner = base(student, tx, settings)
  return delta_lib.delta(net, learner, interval=_SKIP_INTERVAL)
