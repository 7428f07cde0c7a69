"""Training rounds for all devices of a server, one after another.

`make_parts` makes teacher, student and system from a run's flags. A thread
takes key frames from the registry, asks the teacher, trains the device's
student by the pure functions of the system, and returns the result.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import distill, labels
from ojd.edge import student as student_lib
from ojd.edge.registry import Offer, Registry
from ojd.edge.session import Session
from ojd.errors import UserError
from ojd.models.student import Student
from ojd.network import uplink
from ojd.network.messages import H264, Frames, Schedule, Terms
from ojd.network.weights import Params, Weights, layout_of
from ojd.run import build, compilation
from ojd.run import config as config_lib
from ojd.run.config import RunConfig, settled
from ojd.streams.base import MAX_SIDE, MIN_SIDE, StreamSpec
from ojd.teachers import labelers, process
from ojd.types import Frame, Labels, Sample, StepInfo

# They label the frames of one stream, which the server does not have.
_TIED_TEACHERS = ("ground_truth", "recorded")
_MAX_SYSTEMS = 8  # sizes of frames whose programs are kept
_ANY_FPS = 25.0  # where it is not known, or decides nothing
MAX_SKIP = 1 << 20  # frames; 12 hours at 24 a second


class FrameCount(NamedTuple):
  """The server's count of a device's frames, by the times that it sends.

  Frame t of a stream has the time t / fps. A clock that jumps back, or farther
  ahead than a device may be silent, was set anew: its frame is the one after
  the latest.
  """

  next_t: int = 0
  origin: int = 0  # the device's index of frame 0

  def advance(self, time: float, fps: float) -> tuple["FrameCount", int]:
    """Counts the frame of `time`, in finite seconds.

    Returns:
      The count after it, and the frames before it that only the device saw.
    """
    index = round(time * fps)
    num_skipped = index - self.origin - self.next_t
    if 0 <= num_skipped <= MAX_SKIP:
      return self._replace(next_t=self.next_t + num_skipped + 1), num_skipped
    t = self.next_t
    return FrameCount(t + 1, index - t), 0


class RemoteSystem(NamedTuple):
  """A system for frames of one size; each function compiles when called."""

  begin: Callable[[Params], distill.State]  # with these weights
  skip: Callable[[distill.State, int], distill.State]
  learn: Callable[
    [distill.State, Frame, Labels], tuple[distill.State, StepInfo]
  ]
  # The device's weights, and its next key frame.
  serving_params: Callable[[distill.State], Params]
  schedule: Callable[[distill.State], Schedule]


def make_system(
  student: Student,
  system_of: Callable[[Student], distill.System],
  height: int,
  width: int,
  seed: int,
) -> RemoteSystem:
  """A system for the frames of devices.

  Args:
    student: of the system.
    system_of: makes the system around a student.
    height: of the frames; so is width.
    width: likewise.
    seed: of the system's own randomness.
  """
  system = system_of(student)
  blank = np.zeros((height, width, 3), np.uint8)

  @jax.jit
  def init(params):
    given = student._replace(init=lambda rng_key, frame: params)
    return system_of(given).init(jax.random.key(seed), blank)

  @jax.jit
  def learn(state, frame, labels):
    state, _, info = system.learn(state, frame, labels)
    return state, info

  skip, next_key = jax.jit(system.serving.skip), jax.jit(system.next_key)
  params = jax.jit(system.serving.params)
  return RemoteSystem(
    begin=lambda named: init(student_lib.unflatten(named)),
    skip=lambda state, num: skip(state, np.int32(num)) if num else state,
    learn=learn,
    serving_params=lambda state: student_lib.flatten(params(state)),
    schedule=lambda state: _schedule(state, int(next_key(state))),
  )


def _schedule(state, next_key):
  """The schedule after the last key frame."""
  stride = next_key - (int(state.t) - 1)
  period = _field(state, "training", "period")
  if not period:
    return Schedule(stride=stride)
  return Schedule(stride, _field(state, "rate"), period)


def _field(state: Any, *names: str) -> float:
  """A field of a state; only systems that count seconds have it."""
  for name in names:
    state = getattr(state, name, None)
  return 0.0 if state is None else float(state)


class _TrainingState(NamedTuple):
  """A device's student after its last training round."""

  terms: Terms  # that its state was made for
  state: Any  # of the system
  count: FrameCount = FrameCount()


class Trainer:
  """Works from its construction until the registry is closed."""

  def __init__(
    self,
    registry: Registry,
    systems: Callable[[Terms], RemoteSystem],
    labeler: labelers.Labeler,
  ):
    """Starts a thread.

    Args:
      registry: of the devices; the trainer ends with it.
      systems: gives the system for a device's frames.
      labeler: the teacher; the trainer closes it.
    """
    self._registry, self._systems, self._labeler = registry, systems, labeler
    self._thread = threading.Thread(
      target=self._work, name="trainer", daemon=True
    )
    self._thread.start()

  def _work(self):
    try:
      while not self._registry.is_closed:
        taken = self._registry.take(timeout=1.0)
        if taken is not None:
          self._train(*taken)
    finally:
      self._labeler.close()

  def _train(self, session, frames):
    """A training round; an error in it does not stop the trainer."""
    try:
      params, schedule, problem = self.train(session, frames)
    except Exception as error:
      words = " ".join(str(error).split())[:300]
      why = f"{type(error).__name__}: {words}"
      self._registry.failed(session, session.schedule, why)
      return
    if params is None:
      self._registry.failed(session, schedule, problem)
    else:
      self._registry.learned(session, params, schedule)

  def train(self, session: Session, frames: Frames):
    """Trains a device's student on the frames of a message.

    Returns:
      What the device should hold (None: what it holds), the schedule from here
      on, and what went wrong.
    """
    images = uplink.decode_frames(frames)
    system, kept = self._systems(session.terms), session.training_state
    if kept is None or kept.terms != session.terms:
      kept = _TrainingState(session.terms, system.begin(session.held.params))
    problem, has_learned = "", False
    for time, image in zip(frames.times, images, strict=True):
      count, num = kept.count.advance(time, session.terms.fps)
      state = system.skip(kept.state, num)
      self._labeler.ask(Sample(count.next_t - 1, image, None))
      answer = self._labeler.answer(wait=True)
      if answer.labels is None:
        problem, state = answer.problem, system.skip(state, 1)
      else:
        state, _ = system.learn(state, image, answer.labels)
        has_learned = True
      kept = kept._replace(state=state, count=count)
    session.training_state = kept
    schedule = system.schedule(kept.state)
    params = system.serving_params(kept.state) if has_learned else None
    return params, schedule, problem

  def join(self, timeout: float) -> None:
    """Waits for the end of the current training round."""
    self._thread.join(timeout)


class ServerParts(NamedTuple):
  """The parts of a server beside its sockets."""

  offer: Offer
  systems: Callable[[Terms], RemoteSystem]
  labeler: labelers.Labeler
  dtype: str  # in which values travel


def make_parts(config: RunConfig) -> ServerParts:
  """Opens the teacher and makes the system of a checked config.

  Raises:
    UserError: its system or its teacher cannot serve devices.
  """
  _check(config)
  config = settled(config)
  teacher = build.open_teacher(config, _spec(config))
  try:
    return _make_parts(config, teacher)
  except BaseException:
    if isinstance(teacher, process.InProcess):
      teacher.close()
    raise


def _check(config):
  name = config.teacher.partition(":")[0]
  if name in _TIED_TEACHERS:
    raise UserError(
      f"--teacher={config.teacher} answers about a stream of its own, and a "
      "device's is another; name a teacher that looks at frames"
    )
  if build.method_of(config).prepare is not None:
    raise UserError(
      f"--system={config.system} learns from the whole stream beforehand, and "
      "a device's is not known"
    )


def _spec(config):
  """A description of the streams of future devices."""
  size = config.height or MIN_SIDE, config.width or MIN_SIDE
  return _spec_of(Terms(*size, _ANY_FPS, "", ""))


def _spec_of(terms):
  """A description of a device's stream."""
  size, kind = (terms.height, terms.width), {"kind": "edge"}
  return StreamSpec(*size, terms.fps, None, (), kind, is_live=True)


def _make_parts(config, teacher):
  groups = labels.parse_groups(config.classes, teacher.class_names)
  student = build.make_student(config, groups)
  method = config_lib.bound_system(config)
  remote = method.row.remote
  if remote is None or method.options.get("norm") == "key_frame":
    raise UserError(
      f"--system={config.system}: a device that holds the "
      "student alone would answer otherwise; take shadowtutor, ams or jit"
    )
  params = student_lib.first_weights(student, config.seed)
  layout = layout_of(params, _trainable(config, params))
  # Until devices get another interval.
  if remote.is_batched:
    options = method.options
    first = Schedule(0, options["sampling_rate"], options["train_period"])
  else:
    first = Schedule(stride=remote.first_interval(method.options, _ANY_FPS))
  offer = Offer(
    Weights(params, layout),
    first,
    student_lib.classes_text(groups),
    lambda terms: _problem(config, student, terms, remote.is_batched),
  )

  @functools.lru_cache(_MAX_SYSTEMS)
  def system_for(height, width, fps):
    terms = Terms(height, width, fps, "", "")
    system_of = lambda student: build.make_system(
      config, student, _spec_of(terms)
    )
    return make_system(student, system_of, height, width, config.seed)

  # Some systems count in seconds.
  fps_of = lambda terms: terms.fps if remote.is_batched else _ANY_FPS
  systems = lambda terms: system_for(terms.height, terms.width, fps_of(terms))
  if config.height and config.width:
    _compile(systems, offer, config)
  labeler = _labeler(teacher, groups)
  return ServerParts(offer, systems, labeler, remote.dtype)


def _trainable(config, params):
  trains = build.trains_of(config)
  return None if trains is None else trains(list(params))


def _compile(systems, offer, config):
  """Compiles the first programs of training, if the size is known."""
  size = config.height, config.width
  system = systems(Terms(*size, _ANY_FPS, "", offer.classes))
  frame = np.zeros((*size, 3), np.uint8)
  blank = Labels(np.zeros(size, np.uint8), np.zeros(size, np.float32))
  state = system.begin(offer.first.params)
  state, _ = system.learn(system.skip(state, 1), frame, blank)
  system.serving_params(state), system.schedule(state)
  compilation.return_memory()


def _labeler(teacher, groups):
  if isinstance(teacher, process.InProcess):
    teacher.set_groups(groups)
    return teacher
  return labelers.InStep(teacher, groups)


def _problem(config, student, terms, is_batched):
  """Why the student cannot learn from a device's frames; empty if it can."""
  size = terms.height, terms.width
  if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
    return f"frames of {size[0]}x{size[1]}: {MIN_SIDE} to {MAX_SIDE} a side"
  wanted = config.height or size[0], config.width or size[1]
  if size != wanted:
    return (
      f"frames of {size[0]}x{size[1]}, and the server takes "
      f"{wanted[0]}x{wanted[1]} alone"
    )
  if terms.codec == H264 and not is_batched:
    return (
      f"--codec=h264 sends clips, and --system={config.system} takes frames "
      "one by one"
    )
  try:
    build.make_system(config, student, _spec_of(terms))
  except UserError as error:
    return str(error)
  return ""
