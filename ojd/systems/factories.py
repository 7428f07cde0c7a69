"""From what a person sets to the systems: a function a method.

All take the student, the gradient step and the settings; what a preset of a
method chooses comes as keywords.
"""

from typing import NamedTuple

from ojd.errors import UserError
from ojd.models import optical_flow
from ojd.models.delta import changes, conv_layers, files
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
# Frames from one on which a network runs whole to the next, as published for
# segmentation.
_DELTA_INTERVAL, _SKIP_INTERVAL = 3, 4
SKIP_GATES = ("input", "output")


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
  refresh_every: int | None = None  # None: the method's own
  refresh_change: float | None = None  # None: no change is one
  follow: bool | None = None  # None: where nothing was trained
  gamma: int = 4
  policy: str = "out"
  skip_eps: float = 0.1
  skip_gate: str = "input"
  skip_memory: str = "reference"
  skip_block: int = 1
  quirks: bool = False
  fps: float = 25.0  # of the stream
  flow: optical_flow.HostFlow = optical_flow.dis("medium")
  trained: files.Trained | None = None  # changes, as --init has them


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


def delta(student, tx, settings, base=jit, is_exact=False):
  """Another as the base; between refreshes what was trained, or best pairs."""
  trained = settings.trained
  if trained is not None and trained.form == files.SKIP:
    raise UserError("--init: its gates are of --system=skip, not of delta")
  if is_exact:
    net = convert(student, changes.from_key(changes.same()))
    return _refreshed(net, base(student, tx, settings), settings)
  if trained is None:
    net = convert(student, changes.rules(_pairs(student, settings)))
  else:
    net = files.convert_trained(student, trained)
  return _refreshed(net, base(student, tx, settings), settings)


def _pairs(student, settings):
  """By layer the pair of the settings, where it saves work."""
  gamma, policy = settings.gamma, settings.policy
  inner = conv_layers.converted(conv_layers.trace(student))
  changes.check_gamma(gamma, policy, inner)
  pair = changes.pair(gamma=gamma, policy=policy, bias_twice=settings.quirks)
  return changes.where_it_saves(pair)


def skip(student, tx, settings, base=jit):
  """Another as the base; between refreshes only where something changed."""
  trained = settings.trained
  if trained is None:
    gate = skip_lib.by_norm(
      settings.skip_eps,
      of_output=settings.skip_gate == "output",
      by_height=settings.quirks,
    )
    rule = skip_lib.skip(
      gate,
      memory=settings.skip_memory,
      block=settings.skip_block,
      bias_twice=settings.quirks,
    )
    net = convert(student, rule)
  elif trained.form == files.SKIP:
    net = files.convert_trained(student, trained)
  else:
    raise UserError(
      f"--init: its {trained.form} are of --system=delta, not of skip"
    )
  learner = base(student, tx, settings)
  return _refreshed(net, learner, settings, _SKIP_INTERVAL)


def _refreshed(net, learner, settings, interval=_DELTA_INTERVAL):
  trained, follow = settings.trained, settings.follow
  every = settings.refresh_every
  return delta_lib.delta(
    net,
    learner,
    interval=interval if every is None else every,
    threshold=settings.refresh_change,
    follows=trained is None if follow is None else follow,
    first=None if trained is None else trained.delta,
  )
