"""A budget of the teacher's calls, shared between streams by priority.

Tokens come at a steady rate, and a call takes one. If more streams request the
teacher than there are tokens, streams go first whose student is estimated to be
below its threshold, and among them those that labels are estimated to help most
(as in the thief scheduler of Ekya, NSDI 2022). A stream that has waited for
twice its fair share goes before all, the longest first, so that no stream waits
for ever.

The accuracy of a student since its last update is unknown; it is estimated to
fall as fast as it did between the two key frames before.
"""

import abc
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ojd.teachers import labelers
from ojd.types import Sample

_BURST_SECONDS = 1.0  # of tokens that may be saved up
_FAIR_SHARES = 2.0  # after which a stream goes before all
_FORGET_SECONDS = 2.0  # a live stream that wants the teacher asks every frame


class Estimate(NamedTuple):
  """An estimate of a student's accuracy; times in seconds."""

  accuracy: float | None = None  # after its last update; None: never updated
  time: float = 0.0  # of that update
  fall: float = 0.0  # of its accuracy in a second


def updated(
  estimate: Estimate, now: float, before: float, after: float
) -> Estimate:
  """After a key frame: mean IoU with the teacher before and after updates."""
  fall, seconds = 0.0, now - estimate.time
  if estimate.accuracy is not None and seconds > 0:
    fall = max(0.0, estimate.accuracy - before) / seconds
  return Estimate(after, now, fall)


class Request(NamedTuple):
  """A stream's request for the teacher."""

  since: float  # seconds
  accuracy: float  # estimated, now
  gain: float  # of accuracy, estimated


def request(estimate: Estimate, since: float, now: float) -> Request:
  """The gain is what was lost since the last update."""
  if estimate.accuracy is None:
    return Request(since, 0.0, 1.0)
  lost = estimate.fall * max(now - estimate.time, 0.0)
  lost = min(lost, estimate.accuracy)
  return Request(since, estimate.accuracy - lost, lost)


def by_priority(
  requests: Mapping[str, Request], now: float, threshold: float, timeout: float
) -> list[str]:
  """The streams that request the teacher, the most urgent first.

  Args:
    requests: by the name of the stream, which decides between equals.
    now: in seconds.
    threshold: mean IoU below which a student is not good enough.
    timeout: seconds after which a stream goes before all others.
  """

  def key(name):
    wanted = requests[name]
    if now - wanted.since >= timeout:
      return 0, wanted.since, 0.0, name
    is_good = wanted.accuracy >= threshold
    return 1 + is_good, -wanted.gain, wanted.since, name

  return sorted(requests, key=key)


def timeout(num_streams: int, rate: float) -> float:
  """Seconds after which a stream that waits goes before all others."""
  return _FAIR_SHARES * num_streams / rate


class TokenBucket(NamedTuple):
  """A token bucket."""

  tokens: float
  time: float  # seconds


def full_bucket(rate: float, now: float) -> TokenBucket:
  """A full bucket, filled by `rate` tokens a second."""
  return TokenBucket(_capacity(rate), now)


def refilled(bucket: TokenBucket, rate: float, now: float) -> TokenBucket:
  """The bucket with the tokens since then, up to its capacity."""
  tokens = bucket.tokens + rate * max(now - bucket.time, 0.0)
  return TokenBucket(min(tokens, _capacity(rate)), max(now, bucket.time))


def _capacity(rate):
  # One more: no token is lost while a frame is on its way.
  return 1.0 + _BURST_SECONDS * rate


class RateLimiter(abc.ABC):
  """Decides who may call the teacher: a bucket, and estimates of the streams.

  A subclass decides when. A stream calls `acquire` for a frame that it may ask
  about, `seconds` from its start, and `advance` with the metrics of a finished
  frame, when the next one is at `seconds`.
  """

  def __init__(self, rate: float, names: Iterable[str], threshold: float):
    """No student has been updated yet.

    Args:
      rate: calls a second.
      names: of the streams.
      threshold: mean IoU below which a student is not good enough.
    """
    self._rate, self._threshold = rate, threshold
    self._estimates = {name: Estimate() for name in names}
    self._since: dict[str, float] = {}  # when open requests began
    self._bucket: TokenBucket | None = None
    self._changed = threading.Condition()
    self.num_granted = self.num_deferred = 0

  def counts(self) -> tuple[int, int]:
    """Requests that were granted, and deferred."""
    return self.num_granted, self.num_deferred

  @abc.abstractmethod
  def acquire(self, name: str, seconds: float) -> bool:
    """Whether a stream may ask the teacher about its frame."""

  @abc.abstractmethod
  def advance(self, name: str, line: dict[str, Any], seconds: float) -> None:
    """Updates the estimate of a stream after its frame."""

  def _decide(self, names, now) -> list[str]:
    """The streams that get a token, of those that request one."""
    if self._bucket is None:
      self._bucket = full_bucket(self._rate, now)
    self._bucket = refilled(self._bucket, self._rate, now)
    requests = {
      name: request(
        self._estimates[name], self._since.setdefault(name, now), now
      )
      for name in names
    }
    longest = timeout(len(self._estimates), self._rate)
    order = by_priority(requests, now, self._threshold, longest)
    return order[: int(self._bucket.tokens)]

  def _count(self, name, is_granted):
    if not is_granted:
      self.num_deferred += 1
      return
    self._bucket = self._bucket._replace(tokens=self._bucket.tokens - 1)
    self._since.pop(name, None)
    self.num_granted += 1

  def _update(self, name, line, now):
    if line.get("miou_after") is not None and name in self._estimates:
      self._estimates[name] = updated(
        *(self._estimates[name], now, line["miou_before"], line["miou_after"])
      )

  def leave(self, name: str) -> None:
    """Removes a stream; the others share its tokens."""
    with self._changed:
      self._estimates.pop(name, None)
      self._since.pop(name, None)
      self._changed.notify_all()


class ClockLimiter(RateLimiter):
  """By the clock, for live streams: a decision is immediate."""

  def __init__(
    self,
    rate: float,
    names: Iterable[str],
    threshold: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    super().__init__(rate, names, threshold)
    self._clock = clock
    self._asked: dict[str, float] = {}  # when open requests last came

  def acquire(self, name: str, seconds: float) -> bool:
    del seconds  # of the stream
    with self._changed:
      now = self._clock()
      self._asked[name] = now
      for other, asked in list(self._asked.items()):
        if now - asked > _FORGET_SECONDS or other not in self._estimates:
          del self._asked[other]
          self._since.pop(other, None)
      is_granted = name in self._decide(self._asked, now)
      self._count(name, is_granted)
      if is_granted:
        del self._asked[name]
      return is_granted

  def advance(self, name: str, line: dict[str, Any], seconds: float) -> None:
    del seconds
    with self._changed:
      self._update(name, line, self._clock())


class StreamTimeLimiter(RateLimiter):
  """By the streams' own time: a decision waits for the streams behind.

  So the same recorded streams give the same decisions on any machine.
  """

  def __init__(self, rate: float, names: Iterable[str], threshold: float):
    super().__init__(rate, names, threshold)
    self._time = dict.fromkeys(self._estimates, 0.0)  # of each one's frame
    self._waiting: set[str] = set()
    self._decided: dict[str, bool] = {}

  def acquire(self, name: str, seconds: float) -> bool:
    with self._changed:
      self._time[name] = seconds
      self._waiting.add(name)
      self._decide_all()
      while name not in self._decided:
        self._changed.wait()
      return self._decided.pop(name)

  def advance(self, name: str, line: dict[str, Any], seconds: float) -> None:
    with self._changed:
      self._update(name, line, self._time[name])
      self._time[name] = seconds
      self._decide_all()

  def leave(self, name: str) -> None:
    super().leave(name)
    with self._changed:
      self._time.pop(name, None)
      self._decide_all()

  def _decide_all(self):
    """Decides among those that are the farthest behind, if all of them ask."""
    if not self._waiting:
      return
    now = min(self._time.values())
    behind = {name for name, at in self._time.items() if at == now}
    if not behind <= self._waiting:
      return  # somebody is still on the way here
    granted = self._decide(behind, now)
    for name in behind:
      self._waiting.discard(name)
      self._decided[name] = name in granted
      self._count(name, name in granted)
    self._changed.notify_all()


class RateLimitedLabeler:
  """A Labeler that asks another one when a rate limiter allows it."""

  def __init__(
    self, labeler: labelers.Labeler, limiter: RateLimiter, name: str, fps: float
  ):
    """Takes a labeler.

    Args:
      labeler: of the teacher; closed with this one.
      limiter: decides.
      name: of the stream.
      fps: its frames a second.
    """
    self._labeler, self._limiter = labeler, limiter
    self._name, self._fps = name, fps
    self.is_free = labeler.is_free
    self._waited, self._deferred = 0.0, None

  def ask(self, sample: Sample) -> None:
    begun = time.perf_counter()
    is_granted = self._limiter.acquire(self._name, sample.t / self._fps)
    self._waited = time.perf_counter() - begun
    self._deferred = None if is_granted else sample
    if is_granted:
      self._labeler.ask(sample)

  def answer(self, wait: bool) -> labelers.Answer | None:
    if self._deferred is not None:
      sample, self._deferred = self._deferred, None
      problem = labelers.DEFERRED
      return labelers.Answer(sample, None, problem, 0.0, self._waited)
    answer = self._labeler.answer(wait)
    if answer is None:
      return None
    return answer._replace(waited=answer.waited + self._waited)

  def poll(self) -> str:
    return self._labeler.poll()

  def close(self) -> None:
    self._labeler.close()
