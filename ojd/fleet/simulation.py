"""A fleet in events: streams that share teachers, played without waiting.

What is modelled. Each of S streams plays the recorded key frames of a run over
and over, from a moment of its own. When a key frame is due the stream asks; the
questions of all wait in one queue, first come, first served. A teacher that is
idle takes up to `batch` of them at once and is busy for

    longest + more * (sum of the others)

of the recorded times of those frames. The stream goes on with its student; when
the answer is there, the student learns for as long as it did on record, on a
device of its own or, with `streams_per_device`, one after another on a device
that also answers every frame of its streams. The next key frame is due the
recorded interval after this one; where that has passed by the time the student
has learnt, it is asked about a stride later, or two: key frames are at multiples
of the stride (Algorithm 1). So streams that wait ask less: the queue is bounded.

What waiting costs. The student is at `miou_before` when a key frame is due, and
would be at `miou_after` if it had learnt at once. Until it has, it goes on losing
at the rate of the recorded interval before, clipped at 0, and never falls below
the lowest accuracy on record; what it would have reached decays likewise. The
difference, from when the key frame was due to when it is learnt, is lost. It is 0
where nothing takes time. The teacher's and the learner's own times are part of
it: `Outcome.lost` of a teacher for every stream is what no teacher more mends.

What is not modelled: the network, frames that come late because a device is
busy, that answers are looked after once a frame, teachers that fail, strides
that change because the student learnt late, scenes of many streams that change
at the same moment.

Times are in seconds. A simulation is a pure function of its arguments.
"""

import array
import collections
import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ojd.errors import RequestError
from ojd.fleet.behaviour import Behaviour

_ROUNDING = 1e-9  # of a stride: a key frame that comes just in time is in time


class Pool(NamedTuple):
  """The teachers."""

  num_teachers: int
  batch: int = 1  # most frames that one takes at once
  more: float = 1.0  # time of a further frame of a batch, of one alone


class Span(NamedTuple):
  """What is looked at, in seconds of the streams."""

  warm_up: float  # passes unseen
  end: float


class Outcome(NamedTuple):
  """What key frames answered within the span met, K of them."""

  waits: np.ndarray  # [K] float64, from asking until a teacher begins
  latencies: np.ndarray  # [K] float64, until the answer is there
  delays: np.ndarray  # [K] float64, until the student has learnt of it
  busy: float  # share of the teachers' time
  learning: float  # students that learn at a time, on average
  lost: float  # mIoU, 0..1, on average over streams and time
  num_events: int  # questions and answers, warm-up included


class Play(NamedTuple):
  """A behaviour in seconds, as lists: quick to look up one by one."""

  gap: list[float]
  stride: list[float]
  service: list[float]
  learn: list[float]
  asked: list[float]  # on the way through, without any queue
  period: float  # of that way


class _Line(NamedTuple):
  """Of the log, about a key frame; or columns of it."""

  stream: np.ndarray
  key: np.ndarray
  due: np.ndarray
  asked: np.ndarray
  began: np.ndarray
  answered: np.ndarray
  learnt: np.ndarray


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


def demand(plays: Sequence[Play], pool: Pool) -> float:
  """Teachers that a stream keeps busy if it never waits and batches are full.

  Args:
    plays: of which every stream takes one, each as often.
    pool: only its batches matter.
  """
  full = (1 + (pool.batch - 1) * pool.more) / pool.batch
  return full * float(np.mean([sum(p.service) / p.period for p in plays]))


def interval(plays: Sequence[Play]) -> float:
  """Seconds from key frame to key frame of a stream that never waits."""
  return 1 / float(np.mean([len(p.gap) / p.period for p in plays]))


def simulate(
  behaviours: Sequence[Behaviour],
  num_streams: int,
  pool: Pool,
  span: Span,
  seed: int,
  *,
  streams_per_device: int = 0,
) -> Outcome:
  """A fleet in which each stream plays one of the behaviours, from anywhere.

  Args:
    behaviours: of one kind of scene; a stream takes any, each as often.
    num_streams: S.
    pool: the teachers.
    span: what is looked at.
    seed: of the choice and of the moments at which streams begin.
    streams_per_device: which learn in turn on one device; 0: each at once.
  """
  rng = np.random.default_rng(seed)
  plays = [play(behaviour) for behaviour in behaviours]
  which = rng.permutation(np.arange(num_streams) % len(plays))
  starts = [_anywhere(plays[i], rng.random()) for i in which]
  devices = Devices(behaviours, which, streams_per_device)
  return run(behaviours, which, starts, pool, span, devices)


def run(
  behaviours: Sequence[Behaviour],
  which: Sequence[int],
  starts: Sequence[tuple[float, int]],
  pool: Pool,
  span: Span,
  devices: "Devices",
) -> Outcome:
  """A fleet whose streams begin as told.

  Args:
    behaviours: some.
    which: of them each stream plays.
    starts: when each asks for the first time, and about which key frame.
    pool: the teachers.
    span: what is looked at.
    devices: where students learn.
  """
  plays = [play(behaviour) for behaviour in behaviours]
  engine = _Engine([plays[i] for i in which], starts, pool, devices)
  engine.run(span)
  return _outcome(engine, behaviours, which, span, pool.num_teachers)


def _anywhere(way, fraction):
  """The first question from a moment of the way on, and when it is asked."""
  moment = fraction * way.period
  key = int(np.searchsorted(way.asked, moment))
  if key == len(way.asked):
    return way.period - moment, 0
  return way.asked[key] - moment, key


class Devices:
  """Where students learn: each stream's alone, or in turn on shared ones."""

  def __init__(
    self,
    behaviours: Sequence[Behaviour],
    which: Sequence[int],
    streams_per_device: int,
  ):
    """A RequestError where a device cannot even answer all frames.

    Args:
      behaviours: some.
      which: of them each stream plays.
      streams_per_device: that share one; 0: none is shared.
    """
    self._per_device = streams_per_device
    if not streams_per_device:
      return
    predicting = [b.fps * b.ms_predict / 1e3 for b in behaviours]
    load = np.array([predicting[i] for i in which])
    edges = range(0, len(load), streams_per_device)
    taken = np.add.reduceat(load, edges) if len(load) else load
    if len(taken) and taken.max() >= 1:
      raise RequestError(
        f"--streams_per_device={streams_per_device}: answering every frame of "
        f"so many streams takes {taken.max():.2f} devices already, without "
        "learning"
      )
    self._slower = (1 / (1 - taken)).tolist()
    self._free = [0.0] * len(taken)

  def learn(self, stream: int, now: float, seconds: float) -> float:
    """When a lesson is over that could begin now; taken in order of time."""
    if not self._per_device:
      return now + seconds
    device = stream // self._per_device
    begin = max(now, self._free[device])
    self._free[device] = begin + seconds * self._slower[device]
    return self._free[device]


class _Engine:
  """Events in order of time: a stream asks (s >= 0), a teacher answers (~id)."""

  def __init__(self, plays, starts, pool, devices):
    # Numbers without objects around them: there are millions.
    self.log = array.array("d")  # a _Line after another
    self.busy = 0.0  # seconds of teachers within the span
    self.num_events = 0
    self._num_batches = 0
    self._plays, self._pool, self._devices = plays, pool, devices
    self._key = [key for _, key in starts]
    self._due = [moment for moment, _ in starts]
    self._asked = list(self._due)
    self._idle = pool.num_teachers
    self._queue: collections.deque[int] = collections.deque()
    self._batches: dict[int, tuple[float, list[int]]] = {}
    self._heap = [(moment, s) for s, moment in enumerate(self._due)]
    heapq.heapify(self._heap)

  def run(self, span):
    """Until its end; the log has what was answered within it."""
    heap, queue, self._span = self._heap, self._queue, span
    while heap and heap[0][0] < span.end:
      now, who = heapq.heappop(heap)
      self.num_events += 1
      if who >= 0:
        self._asked[who] = now
        queue.append(who)
      else:
        self._idle += 1
        self._answer(now, ~who)
      while self._idle and queue:
        self._begin(now)

  def _begin(self, now):
    queue, plays, key = self._queue, self._plays, self._key
    members = [
      queue.popleft() for _ in range(min(self._pool.batch, len(queue)))
    ]
    times = [plays[s].service[key[s]] for s in members]
    longest = max(times)
    over = now + longest + self._pool.more * (sum(times) - longest)
    warm_up, end = self._span
    self.busy += max(0.0, min(over, end) - max(now, warm_up))
    self._idle -= 1
    self._num_batches = number = self._num_batches + 1
    self._batches[number] = now, members
    heapq.heappush(self._heap, (over, ~number))

  def _answer(self, now, number):
    began, members = self._batches.pop(number)
    is_seen = now >= self._span.warm_up
    for s in members:
      way, key, asked = self._plays[s], self._key[s], self._asked[s]
      learnt = self._devices.learn(s, now, way.learn[key])
      if is_seen:
        self.log.extend((s, key, self._due[s], asked, began, now, learnt))
      self._due[s] = due = asked + way.gap[key]
      self._key[s] = (key + 1) % len(way.gap)
      heapq.heappush(self._heap, (next_key(due, learnt, way.stride[key]), s))


def _outcome(engine, behaviours, which, span, num_teachers):
  log = np.frombuffer(engine.log).reshape(-1, len(_Line._fields))
  told = _Line(*log.T)
  seen = span.end - span.warm_up
  kinds = np.asarray(which)[told.stream.astype(int)]
  delays = told.learnt - told.due
  learning = lost = 0.0
  for kind, behaviour in enumerate(behaviours):
    mine = kinds == kind
    keys = told.key[mine].astype(int)
    learning += behaviour.keys.ms_learn[keys].sum() / 1e3
    lost += lost_by(behaviour, keys, delays[mine]).sum()
  return Outcome(
    waits=told.began - told.asked,
    latencies=told.answered - told.asked,
    delays=delays,
    busy=engine.busy / (seen * num_teachers),
    learning=float(learning / seen),
    lost=float(lost / (seen * len(which))),
    num_events=engine.num_events,
  )


def lost_by(
  behaviour: Behaviour, keys: np.ndarray, delays: np.ndarray
) -> np.ndarray:
  """What is lost while key frames are not learnt; [K] mIoU times seconds.

  Args:
    behaviour: whose they are.
    keys: [K] int, which of them.
    delays: [K] seconds from when they were due to when they are learnt.
  """
  told = behaviour.keys
  rate = np.maximum(told.miou_after - told.miou_next, 0)
  rate = rate / (told.interval / behaviour.fps)
  floor = min(told.miou_before.min(), told.miou_next.min())
  at_once = _decay(told.miou_after[keys], rate[keys], floor, delays)
  # Of the first key frame that of the last: the run is played over and over.
  stale = _decay(told.miou_before[keys], rate[keys - 1], floor, delays)
  return np.maximum(at_once - stale, 0)


def _decay(level, rate, floor, seconds):
  """The integral of max(floor, level - rate t) over t from 0 to seconds."""
  room = np.maximum(level - floor, 0)
  forever = np.full_like(room, np.inf)
  until = np.divide(room, rate, out=forever, where=rate > 0)
  falling = np.minimum(seconds, until)
  return floor * seconds + room * falling - rate * falling**2 / 2
