"""A trace in seconds: what its stream asks for, and how accurate it is.

`simulation` says in words what is modelled.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ojd.fleet.trace import Trace

_ROUNDING = 1e-9  # of a stride: a key frame that comes just in time is in time


class Timeline(NamedTuple):
  """A trace in seconds, as lists: quick to look up one by one."""

  trace: Trace
  gap: list[float]
  stride: list[float]
  service: list[float]
  learn: list[float]
  # Of a stream that never waits.
  asked: list[float]  # from the first on
  period: float  # from the first to itself again


def timeline(trace: Trace) -> Timeline:
  """Makes a trace ready."""
  keys, fps = trace.keys, trace.fps
  gap, stride = (keys.interval / fps).tolist(), (keys.stride / fps).tolist()
  service = (keys.ms_teacher / 1e3).tolist()
  learn = (keys.ms_learn / 1e3).tolist()
  asked = [0.0]
  for i in range(len(gap)):
    learned = asked[i] + service[i] + learn[i]
    asked.append(next_key(asked[i] + gap[i], learned, stride[i]))
  return Timeline(trace, gap, stride, service, learn, asked[:-1], asked[-1])


def next_key(due: float, learned: float, stride: float) -> float:
  """The time of the next request: when due, or as many strides later."""
  if learned <= due:
    return due
  return due + math.ceil((learned - due) / stride - _ROUNDING) * stride


def start_at(line: Timeline, fraction: float) -> tuple[float, int]:
  """From that part of the period on: when the next request is, and which."""
  moment = fraction * line.period
  key = int(np.searchsorted(line.asked, moment))
  if key == len(line.asked):
    return line.period - moment, 0
  return line.asked[key] - moment, key


def demand(lines: Sequence[Timeline], batch: int, more: float) -> float:
  """Teachers that a stream keeps busy if it never waits and batches are full.

  Args:
    lines: of which every stream takes one, each as often.
    batch: most frames that a teacher takes at once.
    more: time of a further frame in a batch, of one alone.
  """
  full = (1 + (batch - 1) * more) / batch
  return full * float(np.mean([sum(p.service) / p.period for p in lines]))


def interval(lines: Sequence[Timeline]) -> float:
  """Seconds from key frame to key frame of a stream that never waits."""
  return 1 / float(np.mean([len(p.gap) / p.period for p in lines]))


def predict_load(trace: Trace) -> float:
  """Devices that predicting every frame of a stream keeps busy."""
  return trace.fps * trace.ms_predict / 1e3


def accuracy(
  trace: Trace,
  keys: np.ndarray,
  ages: np.ndarray,
  delays: np.ndarray,
  spans: np.ndarray,
) -> np.ndarray:
  """Accuracy from a request to the next; [K] mIoU times seconds.

  Args:
    trace: whose key frames they are.
    keys: [K] int, which of them are asked about.
    ages: [K] seconds from the request before to this one.
    delays: [K] seconds until its answer is learned.
    spans: [K] seconds until the next request, at least the delays.
  """
  # Before the first key frame comes the last: the run is played in a circle.
  before = _sum(trace, keys - 1, ages + delays) - _sum(trace, keys - 1, ages)
  after = _sum(trace, keys, spans) - _sum(trace, keys, delays)
  return before + after


def ideal_accuracy(trace: Trace, keys: np.ndarray) -> np.ndarray:
  """The same where nothing takes time."""
  return _sum(trace, keys, trace.keys.interval[keys] / trace.fps)


def unqueued_accuracy(line: Timeline) -> tuple[np.ndarray, np.ndarray]:
  """Accuracy times seconds, and seconds, between requests if nobody waits."""
  keys = np.arange(len(line.gap))
  spans = np.diff([*line.asked, line.period])
  delays, ages = np.add(line.service, line.learn), np.roll(spans, 1)
  return accuracy(line.trace, keys, ages, delays, spans), spans


def unqueued_loss(line: Timeline) -> float:
  """What is missing to a student that learns at once if nobody waits; mIoU."""
  best = ideal_accuracy(line.trace, np.arange(len(line.gap))).sum()
  return float(
    best / sum(line.gap) - unqueued_accuracy(line)[0].sum() / line.period
  )


def _sum(trace, keys, seconds):
  """The integral of max(floor, after - rate t) over t from 0 to seconds."""
  known = trace.keys
  fallen = np.maximum(known.miou_after - known.miou_next, 0)
  rate = (fallen / (known.interval / trace.fps))[keys]
  floor = min(known.miou_before.min(), known.miou_next.min())
  room = np.maximum(known.miou_after[keys] - floor, 0)
  forever = np.full_like(room, np.inf)
  until = np.divide(room, rate, out=forever, where=rate > 0)
  falling = np.minimum(seconds, until)
  return floor * seconds + room * falling - rate * falling**2 / 2
