"""How accurate a student is whose teacher's answers come late.

`simulation` says in words what is reckoned here.
"""

import numpy as np

from ojd.fleet.behaviour import Behaviour


def held(
  behaviour: Behaviour,
  keys: np.ndarray,
  ages: np.ndarray,
  delays: np.ndarray,
  spans: np.ndarray,
) -> np.ndarray:
  """Accuracy from a question to the next; [K] mIoU times seconds.

  Args:
    behaviour: whose key frames they are.
    keys: [K] int, which of them are asked about.
    ages: [K] seconds from the question before to this one.
    delays: [K] seconds until its answer is learnt.
    spans: [K] seconds until the next question, at least the delays.
  """
  # Before the first key frame comes the last: the run is played in a circle.
  before = _sum(behaviour, keys - 1, ages + delays)
  before -= _sum(behaviour, keys - 1, ages)
  after = _sum(behaviour, keys, spans) - _sum(behaviour, keys, delays)
  return before + after


def at_once(behaviour: Behaviour, keys: np.ndarray) -> np.ndarray:
  """The same where nothing takes time."""
  return _sum(behaviour, keys, behaviour.keys.interval[keys] / behaviour.fps)


def _sum(behaviour, keys, seconds):
  """The integral of max(floor, after - rate t) over t from 0 to seconds."""
  told = behaviour.keys
  fallen = np.maximum(told.miou_after - told.miou_next, 0)
  rate = (fallen / (told.interval / behaviour.fps))[keys]
  floor = min(told.miou_before.min(), told.miou_next.min())
  room = np.maximum(told.miou_after[keys] - floor, 0)
  forever = np.full_like(room, np.inf)
  until = np.divide(room, rate, out=forever, where=rate > 0)
  falling = np.minimum(seconds, until)
  return floor * seconds + room * falling - rate * falling**2 / 2
