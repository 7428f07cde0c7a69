"""Lessons for all devices of a server, one after the other, in one thread."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ojd.edge import clock as clock_lib
from ojd.edge import pictures
from ojd.edge.clock import Clock
from ojd.edge.course import Course
from ojd.edge.hub import Hub
from ojd.edge.session import Session
from ojd.network.messages import Frames, Terms
from ojd.teachers import labelers
from ojd.types import Sample


class Pupil(NamedTuple):
  """A device's student, as it was left after its last lesson."""

  terms: Terms  # that its state was made for
  state: Any  # of the system
  clock: Clock = Clock()


class Trainer:
  """Takes key frames from a hub, asks the teacher, trains, and hands back."""

  def __init__(
    self,
    hub: Hub,
    courses: Callable[[Terms], Course],
    labeler: labelers.Labeler,
  ):
    """Begins to work in a thread of its own.

    Args:
      hub: of the devices; its end is the trainer's.
      courses: gives the system for a device's frames.
      labeler: the teacher; it is closed in the end.
    """
    self._hub, self._courses, self._labeler = hub, courses, labeler
    self._thread = threading.Thread(
      target=self._work, name="trainer", daemon=True
    )
    self._thread.start()

  def _work(self):
    try:
      while not self._hub.is_closed:
        lesson = self._hub.take(timeout=1.0)
        if lesson is not None:
          self._give(*lesson)
    finally:
      self._labeler.close()

  def _give(self, session, frames):
    """A lesson; whatever goes wrong with it, others follow."""
    try:
      params, schedule, problem = self.teach(session, frames)
    except Exception as error:
      words = " ".join(str(error).split())[:300]
      why = f"{type(error).__name__}: {words}"
      self._hub.failed(session, session.schedule, why)
      return
    if params is None:
      self._hub.failed(session, schedule, problem)
    else:
      self._hub.learnt(session, params, schedule)

  def teach(self, session: Session, frames: Frames):
    """Trains a device's student on the frames of a message.

    Returns:
      What the device should hold (None: what it holds), the schedule from here
      on, and what went wrong.
    """
    images = pictures.unpack(frames)
    course, pupil = self._courses(session.terms), session.pupil
    if pupil is None or pupil.terms != session.terms:
      pupil = Pupil(session.terms, course.begin(session.held.params))
    problem, has_learnt = "", False
    for time, image in zip(frames.times, images, strict=True):
      tick = clock_lib.tick(pupil.clock, time, session.terms.fps)
      state = course.skip(pupil.state, tick.num_skipped)
      self._labeler.ask(Sample(tick.t, image, None))
      answer = self._labeler.answer(wait=True)
      if answer.labels is None:
        problem, state = answer.problem, course.skip(state, 1)
      else:
        state, _ = course.learn(state, image, answer.labels)
        has_learnt = True
      pupil = pupil._replace(state=state, clock=tick.clock)
    session.pupil = pupil
    schedule = course.schedule(pupil.state)
    params = course.answering(pupil.state) if has_learnt else None
    return params, schedule, problem

  def join(self, timeout: float) -> None:
    """Waits for the end of the lesson that is under way."""
    self._thread.join(timeout)
