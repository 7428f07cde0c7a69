"""A fleet in events: streams that share teachers, played without waiting.

What is modelled. Each of S streams plays the recorded key frames of a run over
and over, from a moment of its own. When a key frame is due the stream asks; the
requests of all wait in one queue, first come, first served. A teacher that is
idle takes up to `batch` of them at once and is busy for

    longest + more * (sum of the others)

of the recorded times of those frames. The stream goes on with its student; when
the answer is there, the student learns for as long as it did on record, on a
device of its own or, with `streams_per_device`, one after another on a device
that also predicts every frame of its streams. The next key frame is due the
recorded interval after this one; where that has passed by the time the student
has learned, it is asked about a stride later, or two: key frames are at
multiples of the stride (Algorithm 1). So streams that wait ask less, and the
queue is bounded.

What waiting costs. A student that learned from a key frame is at its recorded
`miou_after` on that frame and loses from there at the rate at which it lost on
record until the next one, clipped at 0, down to the lowest accuracy on record.
The next answer counts from the moment when it is learned. `Outcome.lost` is the
accuracy that is missing to students that learn at once, on average over streams
and time. A part of it is missing without any queue, while the teacher works and
the student learns; the rest, which is 0 without waiting, is
`Outcome.lost_waiting`.

What is not modelled: the network, frames that come late because a device is
busy, that answers are polled once a frame, teachers that fail, strides that
change because the student learned late, and places that change in many streams
at the same moment.

Times are in seconds. A simulation is a pure function of its arguments.
"""

import array
import collections
import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ojd.errors import UserError
from ojd.fleet import timeline
from ojd.fleet.trace import Trace

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

  waits: np.ndarray  # [K] float64, from the request until a teacher begins
  latencies: np.ndarray  # [K] float64, until the answer is there
  busy: float  # share of the teachers' time
  learning: float  # students that learn at a time, on average
  lost: float  # mIoU, 0..1, on average over streams and time
  lost_waiting: float  # more than without any queue
  num_events: int  # requests and answers, warm-up included


class _Line(NamedTuple):
  """Of the log, about a key frame; or columns of it."""

  stream: np.ndarray
  key: np.ndarray
  due: np.ndarray
  asked: np.ndarray
  began: np.ndarray
  answered: np.ndarray
  learned: np.ndarray
  following: np.ndarray  # when the next one is asked about


class Devices:
  """Where students learn: each on its own, or in turn on a shared one.

  A shared device predicts every frame of its streams first: learning gets what
  is left of it.
  """

  def __init__(
    self,
    traces: Sequence[Trace],
    which: Sequence[int],
    streams_per_device: int,
  ):
    """A UserError where a device cannot even predict all frames.

    Args:
      traces: some.
      which: of them each stream plays.
      streams_per_device: that share one; 0: none is shared.
    """
    self._per_device = streams_per_device
    if not streams_per_device:
      return
    load = np.array([timeline.predict_load(traces[i]) for i in which])
    taken = np.add.reduceat(load, range(0, len(load), streams_per_device))
    if taken.max() >= 1:
      raise UserError(
        f"--streams_per_device={streams_per_device}: to predict every frame of "
        f"so many streams takes {taken.max():.2f} devices already, without "
        "learning"
      )
    self._slower = (1 / (1 - taken)).tolist()
    self._free = [0.0] * len(taken)

  def learn(self, stream: int, now: float, seconds: float) -> float:
    """When updates end that could begin now; called in order of time."""
    if not self._per_device:
      return now + seconds
    device = stream // self._per_device
    begin = max(now, self._free[device])
    self._free[device] = begin + seconds * self._slower[device]
    return self._free[device]


def simulate(
  traces: Sequence[Trace],
  num_streams: int,
  pool: Pool,
  span: Span,
  seed: int | Sequence[int],
  *,
  streams_per_device: int = 0,
) -> Outcome:
  """A fleet in which each stream plays one of the traces, from anywhere.

  Args:
    traces: of one kind of scene; a stream takes any, each as often.
    num_streams: S.
    pool: the teachers.
    span: what is looked at.
    seed: of the choice and of the moments at which streams begin.
    streams_per_device: which learn in turn on one device; 0: each at once.
  """
  rng = np.random.default_rng(seed)
  lines = [timeline.timeline(trace) for trace in traces]
  which = rng.permutation(np.arange(num_streams) % len(lines))
  starts = [timeline.start_at(lines[i], rng.random()) for i in which]
  devices = Devices(traces, which, streams_per_device)
  return run(traces, which, starts, pool, span, devices)


def run(
  traces: Sequence[Trace],
  which: Sequence[int],
  starts: Sequence[tuple[float, int]],
  pool: Pool,
  span: Span,
  devices: Devices,
) -> Outcome:
  """A fleet whose streams begin at given moments.

  Args:
    traces: some.
    which: of them each stream plays.
    starts: when each asks for the first time, and about which key frame.
    pool: the teachers.
    span: what is looked at.
    devices: where students learn; they are used up.
  """
  lines = [timeline.timeline(trace) for trace in traces]
  events = _Events([lines[i] for i in which], starts, pool, devices)
  events.run(span)
  log = np.frombuffer(events.log).reshape(-1, len(_Line._fields))
  table, seen = _Line(*log.T), span.end - span.warm_up
  kinds = np.asarray(which)[table.stream.astype(int)]
  learning, lost, waiting = _effects(lines, kinds, table)
  return Outcome(
    waits=table.began - table.asked,
    latencies=table.answered - table.asked,
    busy=events.busy / (seen * pool.num_teachers),
    learning=learning / seen,
    lost=lost,
    lost_waiting=waiting,
    num_events=events.num_events,
  )


class _Events:
  """Events in order of time: a stream asks (s), a batch is answered (~id)."""

  def __init__(self, lines, starts, pool, devices):
    # Numbers without objects around them: there are millions.
    self.log = array.array("d")  # a _Line after another
    self.busy = 0.0  # seconds of teachers within the span
    self.num_events = 0
    self._lines, self._pool, self._devices = lines, pool, devices
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
    queue, lines, key = self._queue, self._lines, self._key
    num = min(self._pool.batch, len(queue))
    streams = [queue.popleft() for _ in range(num)]
    times = [lines[s].service[key[s]] for s in streams]
    longest = max(times)
    over = now + longest + self._pool.more * (sum(times) - longest)
    warm_up, end = self._span
    self.busy += max(0.0, min(over, end) - max(now, warm_up))
    self._idle -= 1
    self._num_batches = number = self._num_batches + 1
    self._batches[number] = now, streams
    heapq.heappush(self._heap, (over, ~number))

  def _answer(self, now, number):
    began, streams = self._batches.pop(number)
    is_seen = now >= self._span.warm_up
    for s in streams:
      line, key, asked = self._lines[s], self._key[s], self._asked[s]
      learned = self._devices.learn(s, now, line.learn[key])
      due = asked + line.gap[key]
      following = timeline.next_key(due, learned, line.stride[key])
      if is_seen:
        times = (self._due[s], asked, began, now, learned, following)
        self.log.extend((s, key, *times))
      self._due[s], self._key[s] = due, (key + 1) % len(line.gap)
      heapq.heappush(self._heap, (following, s))


def _effects(lines, kinds, table):
  """Seconds of learning, what is lost, and how much of it to waiting."""
  learning, sums = 0.0, np.zeros(6)
  for kind, line in enumerate(lines):
    mine = _Line(*(column[kinds == kind] for column in table))
    keys, gaps = mine.key.astype(int), np.array(line.gap)
    learning += line.trace.keys.ms_learn[keys].sum() / 1e3
    spans, delays = mine.following - mine.asked, mine.learned - mine.asked
    ages = mine.asked - mine.due + gaps[keys - 1]
    now = timeline.accuracy(line.trace, keys, ages, delays, spans)
    # The same key frames in streams that never wait, or learn at once: what is
    # compared is not which of them happened to come up.
    alone, spans_alone = timeline.unqueued_accuracy(line)
    best = timeline.ideal_accuracy(line.trace, keys)
    parts = (now, spans, alone[keys], spans_alone[keys], best, gaps[keys])
    sums += [part.sum() for part in parts]
  if not len(table.key):
    return 0.0, 0.0, 0.0
  now, alone, best = sums[::2] / sums[1::2]
  return learning, float(best - now), float(alone - now)
