"""The sessions of a server: admission, turns of training, removal.

Bytes go in, and bytes come out to a `Peer`; sockets are elsewhere. One lock is
held while a message is handled, and never during training.
"""

import collections
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ojd.edge.session import Rules, Session
from ojd.edge.store import Store
from ojd.network import messages
from ojd.network.messages import (
  NO_SESSION,
  SESSION_BYTES,
  Bye,
  Error,
  Frames,
  Hello,
  Schedule,
  Terms,
  VersionError,
  WireError,
)
from ojd.network.weights import Params, Weights, digest_of, layout_of

_MAX_SHOWN = 200  # characters of a text that is not the server's


class Peer(Protocol):
  """The other end of a connection."""

  is_idle: bool  # whether all is sent that was put

  def put(self, data: bytes) -> None:
    """Queues a message; never waits."""

  def close(self) -> None:
    """Ends the connection when the queue is sent."""


class Capacity(NamedTuple):
  """Limits of a server."""

  max_sessions: int = 16  # connected, or kept for those that come back
  forget_seconds: float = 600.0  # without a connection
  max_bytes: int = messages.MAX_BYTES  # of a message


class Offer(NamedTuple):
  """What a server offers, and which devices it can serve."""

  first: Weights  # what each of them begins with
  schedule: Schedule  # at first
  classes: str  # as in `messages.Terms`
  # What is wrong with a device's frames; empty: nothing.
  check_terms: Callable[[Terms], str] = lambda terms: ""

  def mismatch(self, hello: Hello) -> str:
    """Why a device cannot be served; empty if it can."""
    there, here = hello.terms.classes, self.classes
    if there != here:
      return (
        f"other classes: the device has {_quoted(there)}, the server "
        f"{_quoted(here)}; give both the same --classes"
      )
    # As a device sends it, which does not know what trains.
    if hello.layout != layout_of(self.first.params).digest:
      return "another network: give both the same --model"
    return self.check_terms(hello.terms)


@dataclasses.dataclass
class _Entry:
  session: Session
  peer: Peer | None
  left_at: float = 0.0


class Registry:
  """The sessions of a server; every method may be called by any thread."""

  def __init__(
    self,
    offer: Offer,
    rules: Rules = Rules(),  # noqa: B008, a constant
    capacity: Capacity = Capacity(),  # noqa: B008, a constant
    *,
    store: Store | None = None,
    note_fn: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
  ):
    self.offer, self._rules, self.capacity = offer, rules, capacity
    self._store, self._note, self._clock = store, note_fn, clock
    self._first_digest = digest_of(offer.first.params, offer.first.layout)
    self._entries: collections.OrderedDict[bytes, _Entry] = (
      collections.OrderedDict()
    )
    self._numbers: dict[Peer, bytes] = {}
    self._changed = threading.Condition()
    self.is_closed = False

  def receive(self, peer: Peer, data: bytes) -> None:
    """Handles a message; an invalid one ends the connection with a line."""
    try:
      message = messages.decode(data, self.capacity.max_bytes)
      with self._changed:
        self._handle(peer, message)
    except VersionError as error:
      self._note(f"a device was refused: {error}")
      peer.put(messages.refusal(error.version, str(error)))
      peer.close()
    except WireError as error:
      self._end(peer, Error(str(error)))

  def left(self, peer: Peer) -> None:
    """Notes that a connection is over; its session waits for another one."""
    with self._changed:
      number = self._numbers.pop(peer, None)
      entry = self._entries.get(number) if number else None
      if entry is not None and entry.peer is peer:
        entry.peer, entry.left_at = None, self._clock()
        self._note(f"device {_name(number)} is gone")

  def tick(self) -> None:
    """Sends updates again and forgets absent devices; call it now and then."""
    with self._changed:
      now = self._clock()
      for number, entry in list(self._entries.items()):
        if entry.peer is not None:
          # On a slow network an update takes long.
          if entry.peer.is_idle:
            self._put(entry, entry.session.tick(now))
        elif now - entry.left_at >= self.capacity.forget_seconds:
          self._forget(number)

  def take(self, timeout: float | None = None) -> tuple[Session, Frames] | None:
    """Waits for key frames; returns those of the device whose turn it is."""
    with self._changed:
      self._changed.wait_for(lambda: self.is_closed or self._due(), timeout)
      number = self._due()
      if number is None or self.is_closed:
        return None
      self._entries.move_to_end(number)
      session = self._entries[number].session
      return session, session.take()

  def learned(self, session: Session, params: Params, schedule: Schedule):
    """Takes the result of a training round."""
    with self._changed:
      self._deliver(session, session.trained(params, schedule, self._clock()))

  def failed(self, session: Session, schedule: Schedule, why: str) -> None:
    """Notes that a training round failed."""
    with self._changed:
      self._note(f"device {_name(session.number)}: not trained: {why}")
      self._deliver(session, session.failed(schedule, self._clock()))

  def sessions(self) -> list[tuple[Session, bool]]:
    """All sessions, and whether each is connected."""
    with self._changed:
      return [(s.session, s.peer is not None) for s in self._entries.values()]

  def close(self) -> None:
    """Ends `take`, and closes the connection of every device."""
    with self._changed:
      self.is_closed = True
      for entry in self._entries.values():
        if entry.peer is not None:
          entry.peer.put(messages.encode(Bye()))
          entry.peer.close()
      self._changed.notify_all()

  def _due(self):
    """The number of the session that waits, the least recently served."""
    for number, entry in self._entries.items():
      # A device that comes back has newer frames.
      if entry.peer is not None and entry.session.has_frames:
        return number
    return None

  def _handle(self, peer, message):
    number = self._numbers.get(peer)
    if isinstance(message, Hello):
      if number is not None:
        raise WireError("a second Hello")
      self._admit(peer, message)
    elif number is None:
      raise WireError(f"a {type(message).__name__} before a Hello")
    elif isinstance(message, Bye | Error):
      if isinstance(message, Error):
        self._note(f"device {_name(number)} says: {message.text}")
      peer.close()
    else:
      entry = self._entries[number]
      self._put(entry, entry.session.handle(message, self._clock()))
      self._changed.notify_all()

  def _admit(self, peer, hello):
    problem = self.offer.mismatch(hello)
    if problem:
      self._end(peer, Error(problem, is_final=True))
      return
    entry = self._entries.get(hello.session)
    session = entry.session if entry is not None else self._restore(hello)
    is_new = session is None
    if is_new:
      session = self._begin(hello)
    number = session.number
    if entry is None and not self._make_room():
      text = f"the server is full: {self.capacity.max_sessions} devices"
      self._end(peer, Error(text))
      return
    # Nor are the weights in a file, if the device has a newer version.
    is_behind = entry is None and hello.version > session.held.version
    wants = (is_new or is_behind) and self._should_adopt(hello)
    replies = session.connect(hello, self._clock(), wants)
    self._take_over(number)
    self._entries[number] = _Entry(session, peer)
    self._numbers[peer] = number
    terms, how = hello.terms, "is new" if is_new else "is back"
    self._note(
      f"device {_name(number)} {how}: {terms.height}x{terms.width}, "
      f"{terms.fps:g} fps, {terms.codec}, version {hello.version}"
    )
    self._put(self._entries[number], replies)

  def _should_adopt(self, hello):
    """Whether a device with an unknown session was trained before.

    Its weights are better than the first ones.
    """
    num_bytes = 4 * self.offer.first.layout.num_coords + 1000
    fits = num_bytes <= self.capacity.max_bytes
    is_other = hello.weights != self._first_digest
    return hello.version > 0 and is_other and fits

  def _begin(self, hello):
    """Makes a session, with the first weights or with the device's."""
    number, first = secrets.token_bytes(SESSION_BYTES), self.offer.first
    if hello.weights == self._first_digest or self._should_adopt(hello):
      first = first._replace(version=hello.version)
    return Session(number, hello.terms, first, self.offer.schedule, self._rules)

  def _take_over(self, number):
    """The client that had the session gets an error and leaves."""
    entry = self._entries.get(number)
    if entry is None or entry.peer is None:
      return
    del self._numbers[entry.peer]
    text = "another client has taken up this session"
    self._end(entry.peer, Error(text, is_final=True))

  def _restore(self, hello):
    """The session of an earlier server; None if there is none."""
    if self._store is None or hello.session == NO_SESSION:
      return None
    try:
      held = self._store.load(hello.session, self.offer.first.layout)
    except WireError as error:
      self._note(f"warning: {error}")
      return None
    if held is None:
      return None
    schedule = self.offer.schedule
    return Session(hello.session, hello.terms, held, schedule, self._rules)

  def _make_room(self):
    """Forgets the device that is away for longest, if necessary."""
    if len(self._entries) < self.capacity.max_sessions:
      return True
    away = [(s.left_at, n) for n, s in self._entries.items() if s.peer is None]
    if not away:
      return False
    self._forget(min(away)[1])
    return True

  def _forget(self, number):
    del self._entries[number]
    self._note(f"device {_name(number)} is forgotten")

  def _deliver(self, session, replies):
    entry = self._entries.get(session.number)
    if entry is None or entry.session is not session:
      return  # forgotten during training
    if self._store is not None:
      self._save(session)
    self._put(entry, replies)

  def _save(self, session):
    try:
      self._store.save(session.number, session.held)
    except OSError as error:
      self._note(f"warning: weights cannot be kept: {error.strerror or error}")

  def _put(self, entry, replies):
    if entry.peer is None:
      return
    try:
      for message in replies:
        entry.peer.put(messages.encode(message))
    except WireError as error:  # larger than any message may be
      self._end(entry.peer, Error(str(error), is_final=True))

  def _end(self, peer, error: Error):
    self._note(f"a device was refused: {error.text}")
    peer.put(messages.encode(error))
    peer.close()


def _name(number):
  """A session's name for people; it does not give access to the session."""
  return number[:3].hex()


def _quoted(text):
  is_short = len(text) <= _MAX_SHOWN
  return repr(text if is_short else text[: _MAX_SHOWN - 3] + "...")
