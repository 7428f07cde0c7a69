"""The server's state of a device: its weights, its update, its key frames.

Messages go in and messages come out; there is no socket, no thread and no clock
here. At most one update is in flight. The next one has all that was learned
meanwhile. An update that is not acknowledged in time is sent again.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ojd.network import weights
from ojd.network.messages import (
  FULL,
  Ack,
  Frames,
  Heartbeat,
  Hello,
  Message,
  Resync,
  Schedule,
  Terms,
  Update,
  Welcome,
  WireError,
)
from ojd.network.weights import Params, Weights

_BURST_SECONDS = 10.0  # of frames that may come at once


class Rules(NamedTuple):
  """Limits for a device."""

  max_queue: int = 4  # messages with key frames that wait for training
  max_rate: float = 10.0  # key frames a second
  resend_seconds: float = 60.0  # without an Ack, an update is sent again
  dtype: str = "float32"  # in which values travel


@dataclasses.dataclass
class Counts:
  """Counts of a device's frames."""

  num_frames: int = 0  # that came
  num_refused: int = 0  # that came too fast
  num_dropped: int = 0  # that waited while newer ones came
  num_rounds: int = 0  # of training
  num_failed: int = 0  # training rounds that failed
  num_updates: int = 0
  num_whole: int = 0  # of them with all weights
  num_resent: int = 0


class Session:
  """The server's side of a device; it outlives its connections."""

  def __init__(
    self,
    number: bytes,
    terms: Terms,
    held: Weights,
    schedule: Schedule,
    rules: Rules = Rules(),  # noqa: B008, a constant
  ):
    """Starts with `held` as the device's weights."""
    self.number, self.terms, self.rules = number, terms, rules
    self.held = held
    self.schedule = schedule
    self.counts = Counts()
    self.training_state: Any = None  # what the trainer keeps of it
    self._digest = weights.digest_of(held.params, held.layout)
    self._in_flight: Update | None = None
    self._sent_at = 0.0
    self._base_digest = b""  # of the weights that it fits
    self._trained: Params | None = None  # and not sent
    self._is_answer_due = False  # trained, without an update sent yet
    self._wants_weights = False
    self._queue: collections.deque[Frames] = collections.deque()
    self._allowance = rules.max_rate * _BURST_SECONDS
    self._allowed_at: float | None = None

  @property
  def is_in_flight(self) -> bool:
    """Whether an update waits for its Ack."""
    return self._in_flight is not None

  @property
  def has_frames(self) -> bool:
    """Whether key frames wait for `take`."""
    return bool(self._queue) and not self._wants_weights

  def take(self) -> Frames:
    """The key frames that have waited longest."""
    return self._queue.popleft()

  def connect(
    self, hello: Hello, now: float, wants_weights: bool = False
  ) -> list[Message]:
    """Starts a connection; returns the Welcome and what the device lacks.

    Args:
      hello: the device's first message.
      now: seconds of any clock.
      wants_weights: whether the device should send its weights.
    """
    self._queue.clear()  # what waits is of the past
    self.terms, self._wants_weights = hello.terms, wants_weights
    version = self.held.version
    is_same = (hello.version, hello.weights) == (version, self._digest)
    update = self._in_flight
    if wants_weights or is_same:
      self._in_flight = None
      more = [] if wants_weights else self._send(now)
    elif update is not None and self._fits(update, hello):
      self._sent_at = now
      self.counts.num_resent += 1
      more = [update]
    else:
      more = self._send_whole(max(version, hello.version) + 1, now)
    welcome = Welcome(
      *(self.number, self.held.version, self.schedule, wants_weights),
      weights.trainable_bits(self.held.layout),
    )
    return [welcome, *more]

  def _fits(self, update, hello):
    """Whether an update applies to the weights of a Hello."""
    base = (update.base_version, self._base_digest)
    is_whole = update.payload.encoding == FULL
    return not is_whole and (hello.version, hello.weights) == base

  def handle(self, message: Message, now: float) -> list[Message]:
    """Handles a message of the device; returns the answers.

    Raises:
      WireError: the message is invalid; the connection should end.
    """
    match message:
      case Frames():
        return self._add(message, now)
      case Ack():
        return self._acknowledge(message, now)
      case Resync():
        return self._resync(message, now)
      case Heartbeat():
        return [message]
      case Update() if self._wants_weights:
        return self._adopt(message)
    raise WireError(f"no {type(message).__name__} is due from a device")

  def _add(self, frames, now):
    terms = self.terms
    agreed = terms.height, terms.width, terms.codec
    if (frames.height, frames.width, frames.codec) != agreed:
      raise WireError(
        f"{frames.codec} frames of {frames.height}x{frames.width}, and "
        f"{terms.codec} of {terms.height}x{terms.width} are agreed upon"
      )
    num = len(frames.times)
    self.counts.num_frames += num
    if not self._allows(num, now):
      self.counts.num_refused += num
      return []
    self._queue.append(frames)
    while len(self._queue) > self.rules.max_queue:
      self.counts.num_dropped += len(self._queue.popleft().times)
    return []

  def _allows(self, num, now):
    """A token bucket: a device that was silent may send several at once."""
    since = 0.0 if self._allowed_at is None else now - self._allowed_at
    allowance = self._allowance + since * self.rules.max_rate
    most = self.rules.max_rate * _BURST_SECONDS
    self._allowance, self._allowed_at = min(most, allowance), now
    if num > self._allowance:
      return False
    self._allowance -= num
    return True

  def _acknowledge(self, ack, now):
    if ack.version > self.held.version:
      raise WireError(
        f"an Ack of version {ack.version}, and {self.held.version} is the last"
      )
    update = self._in_flight
    if update is None or ack.version != update.new_version:
      return []  # a late one
    self._in_flight = None
    return self._send(now)

  def _resync(self, resync, now):
    if resync.version > self.held.version:
      raise WireError(
        f"version {resync.version} of weights whose last one is "
        f"{self.held.version}"
      )
    update = self._in_flight
    if update is not None and update.payload.encoding == FULL:
      return []  # in flight, and sent again if necessary
    return self._send_whole(self.held.version + 1, now)

  def _adopt(self, update):
    held = weights.apply(self.held, update)
    if update.payload.encoding != FULL:
      raise WireError("not all of the weights, and all were asked for")
    self._hold(held)
    self._wants_weights = False
    return []

  def trained(
    self, params: Params, schedule: Schedule, now: float
  ) -> list[Message]:
    """Takes the result of a training round; the device gets it now or later."""
    self.counts.num_rounds += 1
    self.schedule = schedule
    self._trained, self._is_answer_due = params, True
    return [] if self.is_in_flight else self._send(now)

  def failed(self, schedule: Schedule, now: float) -> list[Message]:
    """Notes a failed training round; the device gets the next schedule."""
    self.counts.num_failed += 1
    self.schedule, self._is_answer_due = schedule, True
    return [] if self.is_in_flight else self._send(now)

  def tick(self, now: float) -> list[Message]:
    """Messages that are due because time has passed."""
    waits = self._in_flight is not None
    if not waits or now - self._sent_at < self.rules.resend_seconds:
      return []
    self._sent_at = now
    self.counts.num_resent += 1
    return [self._in_flight]

  def _send(self, now):
    """The update since the last one, if a device waits for it."""
    if not self._is_answer_due:
      return []
    trained, self._trained, self._is_answer_due = self._trained, None, False
    params = self.held.params if trained is None else trained
    try:
      update, held = self._advance(params)
    except WireError:  # not finite: the device keeps its weights
      self.counts.num_failed += 1
      update, held = self._advance(self.held.params)
    return self._put(update, held, now)

  def _advance(self, params):
    dtype = self.rules.dtype
    return weights.advance(
      self.held,
      params,
      weights.changed(self.held, params, dtype),
      **{"dtype": dtype, "session": self.number, "schedule": self.schedule},
    )

  def _send_whole(self, version, now):
    """All weights, for any device."""
    trained, self._trained, self._is_answer_due = self._trained, None, False
    params = self.held.params if trained is None else trained
    if not all(np.isfinite(array).all() for array in params.values()):
      params = self.held.params
    held = Weights(dict(params), self.held.layout, version)
    self.counts.num_whole += 1
    update = weights.whole(held, self.number, self.schedule)
    return self._put(update, held, now)

  def _put(self, update, held, now) -> Sequence[Message]:
    self._base_digest = self._digest
    self._hold(held)
    self._in_flight, self._sent_at = update, now
    self.counts.num_updates += 1
    return [update]

  def _hold(self, held):
    self.held = held
    self._digest = weights.digest_of(held.params, held.layout)
