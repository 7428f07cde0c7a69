"""A recorded behaviour in seconds, and what it asks for where nobody waits."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ojd.fleet import staleness
from ojd.fleet.behaviour import Behaviour

_ROUNDING = 1e-9  # of a stride: a key frame that comes just in time is in time


class Play(NamedTuple):
  """A behaviour in seconds, as lists: quick to look up one by one."""

  gap: list[float]
  stride: list[float]
  service: list[float]
  learn: list[float]
  # Of a stream that never waits.
  asked: list[float]  # from the first on
  period: float  # from the first to itself again


def play(behaviour: Behaviour) -> Play:
  """Makes a behaviour ready."""
  keys, fps = behaviour.keys, behaviour.fps
  gap, stride = (keys.interval / fps).tolist(), (keys.stride / fps).tolist()
  service = (keys.ms_teacher / 1e3).tolist()
  learn = (keys.ms_learn / 1e3).tolist()
  asked = [0.0]
  for i in range(len(gap)):
    learnt = asked[i] + service[i] + learn[i]
    asked.append(next_key(asked[i] + gap[i], learnt, stride[i]))
  return Play(gap, stride, service, learn, asked[:-1], asked[-1])


def next_key(due: float, learnt: float, stride: float) -> float:
  """When the next question is asked: when due, or as many strides later."""
  if learnt <= due:
    return due
  return due + math.ceil((learnt - due) / stride - _ROUNDING) * stride


def demand(plays: Sequence[Play], batch: int, more: float) -> float:
  """Teachers that a stream keeps busy if it never waits and batches are full.

  Args:
    plays: of which every stream takes one, each as often.
    batch: most frames that a teacher takes at once.
    more: time of a further frame in a batch, of one alone.
  """
  full = (1 + (batch - 1) * more) / batch
  return full * float(np.mean([sum(p.service) / p.period for p in plays]))


def interval(plays: Sequence[Play]) -> float:
  """Seconds from key frame to key frame of a stream that never waits."""
  return 1 / float(np.mean([len(p.gap) / p.period for p in plays]))


def held_alone(
  behaviour: Behaviour, way: Play
) -> tuple[np.ndarray, np.ndarray]:
  """Accuracy times seconds, and seconds, between questions if nobody waits."""
  keys, spans = np.arange(len(way.gap)), np.diff([*way.asked, way.period])
  delays = np.add(way.service, way.learn)
  ages = np.roll(spans, 1)
  return staleness.held(behaviour, keys, ages, delays, spans), spans


def lost_alone(behaviour: Behaviour) -> float:
  """What is missing to a student that learns at once if nobody waits; mIoU."""
  way = play(behaviour)
  best = staleness.at_once(behaviour, np.arange(len(way.gap))).sum()
  held = held_alone(behaviour, way)[0].sum()
  return float(best / sum(way.gap) - held / way.period)


def anywhere(way: Play, fraction: float) -> tuple[float, int]:
  """From that part of the way on: when the next question comes, and which."""
  moment = fraction * way.period
  key = int(np.searchsorted(way.asked, moment))
  if key == len(way.asked):
    return way.period - moment, 0
  return way.asked[key] - moment, key
