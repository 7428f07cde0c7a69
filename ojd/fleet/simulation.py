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
has learnt, it is asked about a stride later, or two: key frames are at
multiples of the stride (Algorithm 1). So streams that wait ask less, and the
queue is bounded.

What waiting costs. A student that learnt from a key frame is at its recorded
`miou_after` on that frame and loses from there at the rate at which it lost on
record until the next one, clipped at 0, down to the lowest accuracy on record.
The answer to a question takes its place when it is learnt, and not before. What
is missing, on average over streams and time, to students that learn at once is
`Outcome.lost`. A part of it is missing without any queue, while the teacher
looks and the student learns; the rest, which is 0 where nobody waits, is
`Outcome.lost_waiting`.

What is not modelled: the network, frames that come late because a device is
busy, that answers are looked after once a frame, teachers that fail, strides
that change because the student learnt late, and places that change in many
streams at the same moment.

Times are in seconds. A simulation is a pure function of its arguments.
"""

import array
import collections
import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ojd.fleet import play, staleness
from ojd.fleet.behaviour import Behaviour
from ojd.fleet.devices import Devices

_SAME_MOMENT = 1e-9  # seconds; sums of the same times in another order


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
  busy: float  # share of the teachers' time
  learning: float  # students that learn at a time, on average
  lost: float  # mIoU, 0..1, on average over streams and time
  lost_waiting: float  # more than without any queue
  num_events: int  # questions and answers, warm-up included


class _Line(NamedTuple):
  """Of the log, about a key frame; or columns of it."""

  stream: np.ndarray
  key: np.ndarray
  due: np.ndarray
  asked: np.ndarray
  began: np.ndarray
  answered: np.ndarray
  learnt: np.ndarray
  following: np.ndarray  # when the next one is asked about


def simulate(
  behaviours: Sequence[Behaviour],
  num_streams: int,
  pool: Pool,
  span: Span,
  seed: int | Sequence[int],
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
  plays = [play.play(behaviour) for behaviour in behaviours]
  which = rng.permutation(np.arange(num_streams) % len(plays))
  starts = [play.anywhere(plays[i], rng.random()) for i in which]
  devices = Devices(behaviours, which, streams_per_device)
  return run(behaviours, which, starts, pool, span, devices)


def run(
  behaviours: Sequence[Behaviour],
  which: Sequence[int],
  starts: Sequence[tuple[float, int]],
  pool: Pool,
  span: Span,
  devices: Devices,
) -> Outcome:
  """A fleet whose streams begin as told.

  Args:
    behaviours: some.
    which: of them each stream plays.
    starts: when each asks for the first time, and about which key frame.
    pool: the teachers.
    span: what is looked at.
    devices: where students learn; they are used up.
  """
  plays = [play.play(behaviour) for behaviour in behaviours]
  engine = _Engine([plays[i] for i in which], starts, pool, devices)
  engine.run(span)
  log = np.frombuffer(engine.log).reshape(-1, len(_Line._fields))
  told, seen = _Line(*log.T), span.end - span.warm_up
  kinds = np.asarray(which)[told.stream.astype(int)]
  learning, lost, waiting = _effects(behaviours, plays, kinds, told)
  return Outcome(
    waits=told.began - told.asked,
    latencies=told.answered - told.asked,
    busy=engine.busy / (seen * pool.num_teachers),
    learning=learning / seen,
    lost=lost,
    lost_waiting=waiting,
    num_events=engine.num_events,
  )


class _Engine:
  """Events in order of time: a stream asks (s), a batch is answered (~id)."""

  def __init__(self, plays, starts, pool, devices):
    # Numbers without objects around them: there are millions.
    self.log = array.array("d")  # a _Line after another
    self.busy = 0.0  # seconds of teachers within the span
    self.num_events = 0
    self._plays, self._pool, self._devices = plays, pool, devices
    self._due = [moment for moment, _ in starts]
    self._key = [key for _, key in starts]
    self._asked = list(self._due)
    self._idle = pool.num_teachers
    self._queue: collections.deque[int] = collections.deque()
    self._batches: dict[int, tuple[float, list[int]]] = {}
    self._num_batches = 0
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
      # Who asks at the same moment may be in the same batch.
      while (
        self._idle and queue and (not heap or heap[0][0] > now + _SAME_MOMENT)
      ):
        self._begin(now)

  def _begin(self, now):
    queue, plays, key = self._queue, self._plays, self._key
    num = min(self._pool.batch, len(queue))
    members = [queue.popleft() for _ in range(num)]
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
      due = asked + way.gap[key]
      following = play.next_key(due, learnt, way.stride[key])
      if is_seen:
        times = (self._due[s], asked, began, now, learnt, following)
        self.log.extend((s, key, *times))
      self._due[s], self._key[s] = due, (key + 1) % len(way.gap)
      heapq.heappush(self._heap, (following, s))


def _effects(behaviours, plays, kinds, told):
  """Seconds of learning, what is lost, and how much of it to waiting."""
  learning, sums = 0.0, np.zeros(6)
  for kind, (behaviour, way) in enumerate(zip(behaviours, plays, strict=True)):
    mine = _Line(*(column[kinds == kind] for column in told))
    keys = mine.key.astype(int)
    learning += behaviour.keys.ms_learn[keys].sum() / 1e3
    spans = mine.following - mine.asked
    ages = mine.asked - mine.due + np.array(way.gap)[keys - 1]
    now = staleness.held(behaviour, keys, ages, mine.learnt - mine.asked, spans)
    # The same key frames in streams that never wait, or learn at once: what is
    # compared is not which of them happened to come up.
    alone, spans_alone = play.held_alone(behaviour, way)
    best, gaps = staleness.at_once(behaviour, keys), np.array(way.gap)
    parts = (now, spans, alone[keys], spans_alone[keys], best, gaps[keys])
    sums += [part.sum() for part in parts]
  if not len(told.key):
    return 0.0, 0.0, 0.0
  now, alone, best = sums[::2] / sums[1::2]
  return learning, float(best - now), float(alone - now)
