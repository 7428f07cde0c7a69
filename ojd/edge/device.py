"""A device's side of the protocol: messages in, messages out.

There is no socket here. One thread calls `handle`; any thread may read the plan
and the weights, which are values.
"""

import dataclasses
import math
import threading
from collections.abc import Callable
from typing import NamedTuple

from ojd.network import weights
from ojd.network.messages import (
  FULL,
  NO_SESSION,
  Ack,
  Bye,
  Error,
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
from ojd.network.weights import Weights

_MAX_BEATS = 16  # heartbeats without an answer yet
WELCOME_SECONDS = 30.0  # that a server has for it


class Plan(NamedTuple):
  """Which frames a device sends, and whether it waits for an update.

  A plan is a value: the player reads it without waiting for
  the thread that talks to the server.
  """

  is_ready: bool = False  # there is a server, and it has said Welcome
  schedule: Schedule = Schedule()
  key_t: int | None = None  # the latest key frame that was sent
  sent_at: float = 0.0  # on the clock of the wall
  is_awaiting: bool = False  # the answer to it
  is_overdue: bool = True  # the next frame is a key frame, whatever the stride
  sample_time: float = -math.inf  # of the latest sample, by the stream's time

  def wants(self, t: int, time: float, now: float, patience: float) -> bool:
    """Whether frame t is to be sent.

    Args:
      t: of the frame.
      time: of the frame, seconds of the stream.
      now: on the clock of the wall.
      patience: seconds after which an answer is no longer waited for.
    """
    if not self.is_ready:
      return False
    if self.schedule.training_period > 0:
      interval = 1 / max(self.schedule.sampling_rate, 1e-3)
      # A clock that was set back starts anew.
      return not self.sample_time <= time < self.sample_time + interval - 1e-6
    if self.is_awaiting:
      return now - self.sent_at >= patience
    return self.is_overdue or self.key_t is None or self._is_due(t)

  def _is_due(self, t: int) -> bool:
    """Whether the stride is over, or the stream has started again."""
    return t >= self.key_t + self.schedule.stride or t < self.key_t

  def is_stale(self, t: int, most: int) -> bool:
    """Whether a device with --wait has to wait before frame t."""
    if not (self.is_ready and self.is_awaiting and self.key_t is not None):
      return False
    return self.schedule.training_period == 0 and t - self.key_t >= most

  def sent(self, t: int, now: float) -> "Plan":
    """Notes that a key frame was sent."""
    return self._replace(
      key_t=t, sent_at=now, is_awaiting=True, is_overdue=False
    )

  def answered(self, schedule: Schedule) -> "Plan":
    """Notes that an update came; its schedule holds from here on."""
    return self._replace(schedule=schedule, is_awaiting=False)

  def welcomed(self, schedule: Schedule) -> "Plan":
    """Notes a Welcome; a key frame without an answer is sent again."""
    is_overdue = self.is_overdue or self.is_awaiting
    return self._replace(
      schedule=schedule,
      is_ready=True,
      is_awaiting=False,
      is_overdue=is_overdue,
    )

  def lost(self) -> "Plan":
    """Notes that the connection is lost."""
    return self._replace(is_ready=False)


class Hangup(Exception):
  """The server ends the connection: the reason, and whether to try again."""

  def __init__(self, text: str, is_final: bool):
    super().__init__(text)
    self.is_final = is_final


class ServedWeights(NamedTuple):
  """Weights to predict with."""

  held: Weights
  key_t: int | None  # the latest key frame that they may know of


@dataclasses.dataclass
class Counts:
  """Messages that came and went."""

  num_updates: int = 0  # applied
  num_whole: int = 0  # of them with all weights
  num_resyncs: int = 0
  num_welcomes: int = 0
  rtt_ms: float | None = None  # of the latest heartbeat


class Device:
  """The state of a device's connection."""

  def __init__(
    self,
    held: Weights,
    terms: Terms,
    stage: Callable[[ServedWeights], None] = lambda served: None,
  ):
    """Starts with weights of a layout in which all arrays train.

    Args:
      held: the first weights.
      terms: of its frames.
      stage: called with each complete set of new weights.
    """
    self.held, self.terms, self.session = held, terms, NO_SESSION
    self.counts = Counts()
    self.plan = Plan()
    self._stage = stage
    self._layout = held.layout.digest
    self._lock = threading.Lock()  # around changes of the plan
    self._is_connecting, self._connected_at = False, 0.0
    self._beats: list[float] = []

  def connected(self, now: float) -> Hello:
    """Starts a connection; returns its first message."""
    self._is_connecting, self._connected_at, self._beats = True, now, []
    digest = weights.digest_of(self.held.params, self.held.layout)
    return Hello(
      self._layout, self.terms, digest, self.session, self.held.version
    )

  def lost(self) -> None:
    """Notes that the connection is over."""
    self._is_connecting = False
    self._replan(lambda plan: plan.lost())

  def sent(self, t: int, now: float) -> None:
    """Notes that a key frame was sent."""
    self._replan(lambda plan: plan.sent(t, now))

  def sampled(self, time: float) -> None:
    """Notes that a frame waits for the message of its training period."""
    self._replan(lambda plan: plan._replace(sample_time=time))

  def beat(self, now: float) -> Heartbeat:
    """A heartbeat; its `now` is unique."""
    self._beats = [*self._beats, now][-_MAX_BEATS:]
    return Heartbeat(now)

  def check(self, now: float) -> None:
    """Raises a Hangup if the server has been silent for too long."""
    if self._is_connecting and now - self._connected_at > WELCOME_SECONDS:
      raise Hangup("the server does not answer", is_final=False)

  def handle(self, message: Message, now: float) -> list[Message]:
    """Handles a message of the server; returns the answers.

    Raises:
      WireError: the message is invalid; the connection should end.
      Hangup: the server ends it.
    """
    match message:
      case Error():
        raise Hangup(message.text, message.is_final)
      case Bye():
        raise Hangup("the server is going away", is_final=False)
      case Welcome() if self._is_connecting:
        return self._begin(message)
      case Update() if not self._is_connecting:
        return self._update(message)
      case Heartbeat() if not self._is_connecting:
        self._returned(message, now)
        return []
    raise WireError(f"no {type(message).__name__} is due from a server")

  def _begin(self, welcome):
    try:
      layout = weights.with_trainable(
        self.held.params, self.held.layout, welcome.trainable
      )
    except ValueError as error:
      raise WireError(f"the server trains another network: {error}") from None
    self._is_connecting = False
    self.session = welcome.session
    self.held = self.held._replace(layout=layout)
    self.counts.num_welcomes += 1
    self._replan(lambda plan: plan.welcomed(welcome.schedule))
    if not welcome.wants_weights:
      return []
    return [weights.whole(self.held, self.session)]

  def _update(self, update):
    if update.session != self.session:
      raise WireError("an update for another session")
    if update.new_version <= self.held.version:
      return [Ack(self.held.version)]
    is_whole = update.payload.encoding == FULL
    if not is_whole and update.base_version != self.held.version:
      self.counts.num_resyncs += 1
      return [Resync(self.held.version)]
    # All or nothing: the old weights stay until the new ones are complete.
    held = weights.apply(self.held, update)
    self.held = held
    self.counts.num_updates += 1
    self.counts.num_whole += is_whole
    self._stage(ServedWeights(held, self.plan.key_t))
    self._replan(lambda plan: plan.answered(update.schedule))
    return [Ack(held.version)]

  def _returned(self, heartbeat, now):
    if heartbeat.time in self._beats:
      self._beats.remove(heartbeat.time)
      self.counts.rtt_ms = 1e3 * (now - heartbeat.time)

  def _replan(self, change):
    with self._lock:
      self.plan = change(self.plan)
