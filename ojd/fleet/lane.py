"""A lane of an engine, in the place of a system compiled for one run."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ojd.distill import State
from ojd.fleet.engine import Engine
from ojd.run.job import Compiled


class Elsewhere(NamedTuple):
  """A state that its engine keeps: what the host must know of it."""

  next_key: int


def compiled(
  engine: Engine,
  lane: int,
  first: Callable[[], State],
  next_key: Callable[[State], int],
) -> Compiled:
  """The system of one run, whose state is a lane's.

  Args:
    engine: that keeps the state.
    lane: which one; nobody else's.
    first: makes the state that the run begins with.
    next_key: of a state.
  """

  def take(state):
    engine.write(lane, state)
    return Elsewhere(next_key(state))

  def predict(state, frame):
    del state  # the engine has it
    classes, key = engine.predict(lane, frame)
    return Elsewhere(key), classes

  def learn(state, frame, labels):
    del state
    classes, key, info = engine.learn(lane, frame, labels)
    return Elsewhere(key), classes, info

  def peek(state, frame):
    del state
    kept = engine.read(lane)
    classes, _ = engine.predict(lane, frame)
    engine.write(lane, kept)
    return classes

  return Compiled(
    init=lambda: take(first()),
    next_key=lambda state: np.int32(state.next_key),
    learn=learn,
    predict=predict,
    peek=peek,
    take=take,
    read=lambda state: engine.read(lane),
    put=np.asarray,
  )
