"""Training rounds for all devices of a server, one after the other.

A thread takes key frames from the registry, asks the teacher, trains the
device's student by the pure functions of a system, and hands back.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import distill
from ojd.edge import student as student_lib
from ojd.edge.registry import Registry
from ojd.edge.session import Session
from ojd.models.student import Student
from ojd.network import uplink
from ojd.network.messages import Frames, Schedule, Terms
from ojd.network.weights import Params
from ojd.teachers import labelers
from ojd.types import Frame, Labels, Sample, StepInfo

MAX_SKIP = 1 << 20  # frames; 12 hours at 24 a second


class FrameCount(NamedTuple):
  """The server's count of a device's frames, by the times that it tells.

  Frame t of a stream is seen at t / fps. A clock that jumps back, or farther
  ahead than a device may be silent, is taken to have been set anew: its frame
  is the one after the latest.
  """

  next_t: int = 0
  origin: int = 0  # the device's index of frame 0
  num_jumps: int = 0

  def advance(self, time: float, fps: float) -> tuple["FrameCount", int]:
    """Counts the frame that a device saw at `time`, in finite seconds.

    Returns:
      The count after it, and the frames before it that only the device saw.
    """
    index = round(time * fps)
    num_skipped = index - self.origin - self.next_t
    if 0 <= num_skipped <= MAX_SKIP:
      return self._replace(next_t=self.next_t + num_skipped + 1), num_skipped
    t = self.next_t
    return FrameCount(t + 1, index - t, self.num_jumps + 1), 0


class RemoteSystem(NamedTuple):
  """A system for frames of one size; each function compiles when called."""

  begin: Callable[[Params], distill.State]  # with these weights
  skip: Callable[[distill.State, int], distill.State]
  learn: Callable[
    [distill.State, Frame, Labels], tuple[distill.State, StepInfo]
  ]
  # What the device needs, and when it is to send a frame again.
  serving_params: Callable[[distill.State], Params]
  schedule: Callable[[distill.State], Schedule]


def make_system(
  student: Student,
  system_of: Callable[[Student], distill.System],
  height: int,
  width: int,
  seed: int,
) -> RemoteSystem:
  """A system as a server drives it for devices.

  Args:
    student: of it.
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
  """From the key frame that was learned from last."""
  stride = next_key - (int(state.t) - 1)
  period = _field(state, "training", "period")
  if not period:
    return Schedule(stride=stride)
  return Schedule(stride, _field(state, "rate"), period)


def _field(state: Any, *names: str) -> float:
  """A number of a state that has it, as systems have that go by seconds."""
  for name in names:
    state = getattr(state, name, None)
  return 0.0 if state is None else float(state)


class _Learned(NamedTuple):
  """A device's student, as its last training round left it."""

  terms: Terms  # that its state was made for
  state: Any  # of the system
  count: FrameCount = FrameCount()


class Trainer:
  """Works from its making until the registry is closed."""

  def __init__(
    self,
    registry: Registry,
    systems: Callable[[Terms], RemoteSystem],
    labeler: labelers.Labeler,
  ):
    """Begins to work in a thread of its own.

    Args:
      registry: of the devices; its end is the trainer's.
      systems: gives the system for a device's frames.
      labeler: the teacher; it is closed in the end.
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
    """A training round; whatever goes wrong with it, others follow."""
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
    system, learned = self._systems(session.terms), session.learned
    if learned is None or learned.terms != session.terms:
      learned = _Learned(session.terms, system.begin(session.held.params))
    problem, has_learned = "", False
    for time, image in zip(frames.times, images, strict=True):
      count, num = learned.count.advance(time, session.terms.fps)
      state = system.skip(learned.state, num)
      self._labeler.ask(Sample(count.next_t - 1, image, None))
      answer = self._labeler.answer(wait=True)
      if answer.labels is None:
        problem, state = answer.problem, system.skip(state, 1)
      else:
        state, _ = system.learn(state, image, answer.labels)
        has_learned = True
      learned = learned._replace(state=state, count=count)
    session.learned = learned
    schedule = system.schedule(learned.state)
    params = system.serving_params(learned.state) if has_learned else None
    return params, schedule, problem

  def join(self, timeout: float) -> None:
    """Waits for the end of the training round that is under way."""
    self._thread.join(timeout)
