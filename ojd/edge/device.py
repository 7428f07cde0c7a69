"""A device's side of a connection: messages go in, messages come out.

There is no socket here. `handle` is for one thread alone; the plan and the
weights that it leaves are values that any thread may read.
"""

import dataclasses
import threading
from collections.abc import Callable
from typing import NamedTuple

from ojd.edge import plan as plan_lib
from ojd.edge.plan import Plan
from ojd.network import layout as layout_lib
from ojd.network import weights
from ojd.network.limits import WireError
from ojd.network.messages import (
  NO_SESSION,
  Ack,
  Bye,
  Error,
  Heartbeat,
  Hello,
  Message,
  Resync,
  Terms,
  Update,
  Welcome,
)
from ojd.network.weights import Schedule, Weights
from ojd.network.wire import VERSION

_MAX_BEATS = 16  # heartbeats that wait for their return
WELCOME_SECONDS = 30.0  # that a server has for it


class Hangup(Exception):
  """The server ends the connection: why, and whether it would do so again."""

  def __init__(self, text: str, is_final: bool):
    super().__init__(text)
    self.is_final = is_final


class Answering(NamedTuple):
  """Weights to predict with."""

  held: Weights
  key_t: int | None  # the latest key frame that they may know of


@dataclasses.dataclass
class Counts:
  """What came and went."""

  num_updates: int = 0  # applied
  num_whole: int = 0  # of them with all weights
  num_repeated: int = 0  # that were held already
  num_resyncs: int = 0
  num_welcomes: int = 0
  rtt_ms: float | None = None  # of the latest heartbeat


class Device:
  """What a device knows of its server."""

  def __init__(
    self,
    held: Weights,
    terms: Terms,
    stage: Callable[[Answering], None] = lambda answering: None,
  ):
    """Begins with weights of a layout in which all arrays train.

    Args:
      held: what it predicts with at first.
      terms: of its frames.
      stage: is given new weights, whole, as they come.
    """
    self.held, self.terms, self.session = held, terms, NO_SESSION
    self.counts = Counts()
    self.plan = Plan()
    self._stage = stage
    self._layout = held.layout.digest
    self._lock = threading.Lock()  # around changes of the plan
    self._is_greeting, self._greeted_at = False, 0.0
    self._beats: list[float] = []

  def connected(self, now: float) -> Hello:
    """There is a connection; the word to begin it with."""
    self._is_greeting, self._greeted_at, self._beats = True, now, []
    digest = layout_lib.digest_of(self.held.params, self.held.layout)
    return Hello(
      *((VERSION,), self._layout, self.terms, digest),
      *(self.session, self.held.version),
    )

  def lost(self) -> None:
    """The connection is over."""
    self._is_greeting = False
    self._plan(plan_lib.lost)

  def sent(self, t: int, now: float) -> None:
    """A key frame goes up."""
    self._plan(plan_lib.sent, t, now)

  def sampled(self, time: float) -> None:
    """A frame is taken for the message of its training period."""
    self._plan(lambda plan: plan._replace(sample_time=time))

  def beat(self, now: float) -> Heartbeat:
    """A sign of life; `now` is unlike that of any other."""
    self._beats = [*self._beats, now][-_MAX_BEATS:]
    return Heartbeat(now)

  def check(self, now: float) -> None:
    """Raises a Hangup where a server has said nothing for too long."""
    if self._is_greeting and now - self._greeted_at > WELCOME_SECONDS:
      raise Hangup("the server does not answer", is_final=False)

  def handle(self, message: Message, now: float) -> list[Message]:
    """What a message of the server is answered with.

    Raises:
      WireError: a server does not say this; the connection should end.
      Hangup: the server ends it.
    """
    match message:
      case Error():
        raise Hangup(message.text, message.is_final)
      case Bye():
        raise Hangup("the server is going away", is_final=False)
      case Welcome() if self._is_greeting:
        return self._begin(message)
      case Update() if not self._is_greeting:
        return self._update(message)
      case Heartbeat() if not self._is_greeting:
        self._returned(message, now)
        return []
    raise WireError(f"no {type(message).__name__} is due from a server")

  def _begin(self, welcome):
    if welcome.protocol != VERSION:
      raise WireError(f"the server goes on by protocol {welcome.protocol}")
    try:
      layout = layout_lib.with_trainable(
        self.held.params, self.held.layout, welcome.trainable
      )
    except ValueError as error:
      raise WireError(f"the server trains another network: {error}") from None
    self._is_greeting = False
    self.session = welcome.session
    self.held = self.held._replace(layout=layout)
    self.counts.num_welcomes += 1
    schedule = Schedule(
      welcome.stride, welcome.sampling_rate, welcome.training_period
    )
    self._plan(plan_lib.welcomed, schedule)
    if not welcome.wants_weights:
      return []
    return [weights.whole(self.held, self.session)]

  def _update(self, update):
    if update.session != self.session:
      raise WireError("an update for another session")
    if update.new_version <= self.held.version:
      self.counts.num_repeated += 1
      return [Ack(self.held.version)]
    is_whole = update.payload.encoding == "full"
    if not is_whole and update.base_version != self.held.version:
      self.counts.num_resyncs += 1
      return [Resync(self.held.version)]
    # Whole or not at all: what is held stays until all is there.
    held = weights.apply(self.held, update)
    self.held = held
    self.counts.num_updates += 1
    self.counts.num_whole += is_whole
    self._stage(Answering(held, self.plan.key_t))
    schedule = Schedule(
      update.stride, update.sampling_rate, update.training_period
    )
    self._plan(plan_lib.answered, schedule)
    return [Ack(held.version)]

  def _returned(self, heartbeat, now):
    if heartbeat.time in self._beats:
      self._beats.remove(heartbeat.time)
      self.counts.rtt_ms = 1e3 * (now - heartbeat.time)

  def _plan(self, change, *args):
    with self._lock:
      self.plan = change(self.plan, *args)
