"""A system as a server drives it for devices, by its pure functions alone."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import distill
from ojd.edge import beginning
from ojd.models.student import Student
from ojd.network.payload import Params
from ojd.network.weights import Schedule
from ojd.types import Frame, Labels, StepInfo


class Course(NamedTuple):
  """A system for frames of one size; each function compiles when called."""

  begin: Callable[[Params], distill.State]  # with these weights
  skip: Callable[[distill.State, int], distill.State]
  learn: Callable[
    [distill.State, Frame, Labels], tuple[distill.State, StepInfo]
  ]
  # What the device needs, and when it is to send a frame again.
  answering: Callable[[distill.State], Params]
  schedule: Callable[[distill.State], Schedule]


def make_course(
  student: Student,
  system_of: Callable[[Student], distill.System],
  height: int,
  width: int,
  seed: int,
) -> Course:
  """The course of a system.

  Args:
    student: of it.
    system_of: makes the system around a student.
    height: of the frames; so is width.
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

  serving = system.serving
  skip, next_key = jax.jit(serving.skip), jax.jit(system.next_key)
  answering = jax.jit(serving.params)
  return Course(
    begin=lambda named: init(beginning.unflatten(dict(named))),
    skip=lambda state, num: skip(state, np.int32(num)) if num else state,
    learn=learn,
    answering=lambda state: beginning.flatten(answering(state)),
    schedule=functools.partial(_schedule, next_key),
  )


def _schedule(next_key, state):
  """From the key frame that was learnt from last."""
  stride = int(next_key(state)) - (int(state.t) - 1)
  period = _field(state, "training", "period")
  if not period:
    return Schedule(stride=stride)
  return Schedule(stride, _field(state, "rate"), period)


def _field(state: Any, *names: str) -> float:
  """A number of a state that has it, as systems have that go by seconds."""
  for name in names:
    state = getattr(state, name, None)
  return 0.0 if state is None else float(state)
