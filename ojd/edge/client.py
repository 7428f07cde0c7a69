"""A device's connection: it is kept open, and the player never waits for it.

The player offers frames and reads the newest weights. One thread here connects,
sends, and connects again after a break; another one receives.
"""

import contextlib
import dataclasses
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from websockets import exceptions
from websockets.sync import client as websockets_client

from ojd.edge import access
from ojd.edge.access import Dial, Timing
from ojd.edge.device import Device, Hangup
from ojd.network import messages
from ojd.network.messages import Bye, Error, VersionError, WireError
from ojd.network.uplink import Uplink
from ojd.types import Frame

_MAX_SAMPLES = 64  # of a training period, that wait to be sent
_POLL_SECONDS = 0.2
FIRST, LONGEST = 0.25, 10.0  # seconds, of pauses


class Picture(NamedTuple):
  """A frame of the stream."""

  t: int
  time: float  # seconds of the stream
  frame: Frame  # [H, W, 3] uint8


@dataclasses.dataclass
class Counts:
  """Messages and bytes that went over the network."""

  bytes_up: int = 0  # of messages, without those of the protocols below
  bytes_down: int = 0
  num_keys: int = 0  # frames that were sent
  num_replaced: int = 0  # frames that newer ones replaced before they were sent
  num_problems: int = 0


class Client:
  """Keeps a connection to a server from `start` to `close`."""

  def __init__(
    self,
    device: Device,
    dial: Dial,
    uplink: Uplink,
    *,
    timing: Timing = Timing(),  # noqa: B008, a constant
    patience: float = 30.0,
    note_fn: Callable[[str], None] = lambda line: None,
  ):
    """Does nothing yet.

    Args:
      device: makes and handles the messages.
      dial: the server.
      uplink: makes messages of frames.
      timing: of the connection.
      patience: seconds to wait for the answer to a key frame.
      note_fn: called with a line about what happens, from any thread.
    """
    self.device, self.counts = device, Counts()
    self._dial, self._uplink, self._timing = dial, uplink, timing
    self._patience, self._note = patience, note_fn
    self._pauses = pauses(random.Random())
    self.refusal = ""  # why the client gave up; empty: it goes on trying
    self._max_bytes = 6 * device.held.layout.num_coords + (1 << 20)
    self._waiting: list[Picture] = []  # to be sent, a key frame or samples
    self._flushed_at: float | None = None  # stream time of the last message
    self._changed = threading.Condition()
    self._closing, self._reported = False, ""
    self._thread = threading.Thread(
      target=self._work, name="network", daemon=True
    )

  def start(self) -> None:
    """Starts to connect; a second call does nothing."""
    if self._thread.ident is None:
      self._thread.start()

  @property
  def is_connected(self) -> bool:
    """Whether a server has answered with Welcome."""
    return self.device.plan.is_ready

  def offer(self, picture: Picture) -> bool:
    """Takes a frame if it is due, and returns whether it is. Never waits."""
    plan, now = self.device.plan, time.monotonic()
    if not plan.wants(picture.t, picture.time, now, self._patience):
      return False
    with self._changed:
      if plan.schedule.training_period > 0:
        self.device.sampled(picture.time)
        self._drop_later(picture.time)
        most = _MAX_SAMPLES - 1
      else:
        most = 0
      self.counts.num_replaced += max(0, len(self._waiting) - most)
      kept = self._waiting[-most:] if most else []
      self._waiting = [*kept, picture]
      self._changed.notify_all()
    return True

  def _drop_later(self, time):
    """Times of a message ascend; a stream's clock may have been set back."""
    if self._waiting and self._waiting[-1].time >= time:
      self.counts.num_replaced += len(self._waiting)
      self._waiting, self._flushed_at = [], None

  def wait(self, t: int, most: int, timeout: float) -> None:
    """Waits while the weights are too old for frame t.

    Args:
      t: the frame that comes next.
      most: frames since the latest key frame.
      timeout: seconds.
    """
    with self._changed:
      self._changed.wait_for(lambda: not self._is_stale(t, most), timeout)

  def _is_stale(self, t, most):
    plan = self.device.plan
    if plan.is_ready and not plan.schedule.training_period and self._waiting:
      return t - self._waiting[-1].t >= most
    return plan.is_stale(t, most)

  def close(self) -> None:
    """Sends Bye, and ends the threads."""
    with self._changed:
      self._closing = True
      self._changed.notify_all()
    if self._thread.ident is not None:
      self._thread.join(self._timing.opening + self._timing.closing)

  def _work(self):
    while not (self._closing or self.refusal):
      try:
        with contextlib.ExitStack() as stack:
          connection = self._connect(stack)
          if connection is not None:
            self._talk(connection)
      except Exception as error:  # a bug: report it
        self.refusal = f"{type(error).__name__}: {_words_of(error)}"
      if not (self._closing or self.refusal):
        pause = next(self._pauses)
        with self._changed:
          self._changed.wait_for(lambda: self._closing, pause)
    with self._changed:
      self._changed.notify_all()

  def _connect(self, stack):
    """A connection, which ends with the stack; None where there is none."""
    dial, headers = self._dial, {}
    if dial.token:
      headers["Authorization"] = f"Bearer {dial.token}"
    try:
      return stack.enter_context(
        websockets_client.connect(
          dial.url,
          ssl=dial.tls,
          additional_headers=headers,
          user_agent_header=None,
          max_size=self._max_bytes,
          proxy=None if dial.is_loopback else True,
          **access.keep_alive(self._timing),
        )
      )
    except ssl.SSLCertVerificationError as error:
      self.refusal = f"the server is not who it says: {error.verify_message}"
    except exceptions.InvalidStatus as error:
      status = error.response.status_code
      if status == 401:
        self.refusal = "the server refuses the token (HTTP 401)"
      else:
        self._trouble(f"HTTP {status}")
    except (OSError, exceptions.WebSocketException, EOFError) as error:
      self._trouble(_words_of(error))
    return None

  def _talk(self, connection):
    """Runs a connection from its beginning to its end."""
    with contextlib.suppress(OSError):
      access.bound_sends(connection.socket, self._timing.timeout)
    ended = threading.Event()
    receiver = threading.Thread(
      target=self._receive, args=(connection, ended), daemon=True
    )
    try:
      self._send(connection, self.device.connected(time.monotonic()))
      receiver.start()
      while not (self._closing or ended.is_set()):
        self._send_next(connection, ended)
      if self._closing and not ended.is_set():
        self._send(connection, Bye())
    except Hangup as error:
      self._trouble(str(error))
    except (exceptions.ConnectionClosed, OSError) as error:
      connection.close()
      if receiver.ident is None:
        self._trouble(_words_of(error))
      else:  # the receiver says why, when it has read all that came before
        receiver.join()
    finally:
      ended.set()
      self._lose()
      connection.close()
      if receiver.ident is not None:
        receiver.join()
      # Once more: the last message may have been a Welcome.
      self._lose()

  def _lose(self):
    with self._changed:
      self.device.lost()
      self._waiting, self._flushed_at = [], None
      self._changed.notify_all()

  def _send_next(self, connection, ended):
    """Waits for a frame or the next heartbeat, and sends it."""
    with self._changed:
      beat_at = time.monotonic() + self._timing.heartbeat
      while not (self._closing or ended.is_set() or self._is_due()):
        left = beat_at - time.monotonic()
        if left <= 0:
          break
        self._changed.wait(min(left, _POLL_SECONDS))
        self.device.check(time.monotonic())
      taken = self._take() if self._is_due() else []
    if self._closing or ended.is_set():
      return
    if not taken:
      self._send(connection, self.device.beat(time.monotonic()))
      return
    self.counts.num_keys += len(taken)
    self._send(connection, self._pack(taken))

  def _pack(self, pictures):
    """A message of pictures in ascending order."""
    span = pictures[-1].time - pictures[0].time
    rate = (len(pictures) - 1) / span if span > 0 else 1.0
    for picture in pictures:
      self._uplink.add(picture.frame, picture.time, rate)
    return self._uplink.flush()

  def _is_due(self):
    """Whether the waiting frames are to be sent now."""
    if not self._waiting:
      return False
    period = self.device.plan.schedule.training_period
    if self._flushed_at is None:
      self._flushed_at = self._waiting[0].time
    return self._waiting[-1].time - self._flushed_at >= period

  def _take(self):
    taken, self._waiting = self._waiting, []
    self._flushed_at = taken[-1].time
    # Before it is packed: from here on the device waits for its answer.
    self.device.sent(taken[-1].t, time.monotonic())
    return taken

  def _send(self, connection, message):
    data = messages.encode(message)
    connection.send(data)
    with self._changed:  # the receiver sends, too
      self.counts.bytes_up += len(data)

  def _receive(self, connection, ended):
    """Handles messages until the connection ends."""
    try:
      while True:
        data = connection.recv()
        data = data.encode() if isinstance(data, str) else data
        self.counts.bytes_down += len(data)
        self._handle(connection, data)
    except Hangup as error:
      if error.is_final:
        self.refusal = f"the server refuses: {error}"
      else:
        self._trouble(str(error))
    except VersionError as error:
      self.refusal = f"the server cannot be understood: {error}"
    except WireError as error:
      self._trouble(str(error))
      with contextlib.suppress(Exception):
        self._send(connection, Error(str(error)))
    except (exceptions.ConnectionClosed, OSError) as error:
      if not (ended.is_set() or self._closing):
        self._trouble(_words_of(error))
    finally:
      ended.set()
      with self._changed:
        self._changed.notify_all()

  def _handle(self, connection, data):
    was_ready = self.is_connected
    message = messages.decode(data, self._max_bytes)
    for reply in self.device.handle(message, time.monotonic()):
      # The connection may be over, with an Error that is still to be read.
      with contextlib.suppress(exceptions.ConnectionClosed):
        self._send(connection, reply)
    if not was_ready and self.is_connected:
      self._pauses = pauses(random.Random())
      self._reported = ""
      if self.device.counts.num_welcomes > 1:
        self._note("connected to the server again")
    with self._changed:
      self._changed.notify_all()

  def _trouble(self, words):
    self.counts.num_problems += 1
    if words != self._reported:  # once, however often it is tried
      self._note(f"no server: {words}; the device goes on alone")
    self._reported = words


def pauses(
  rng: random.Random, first: float = FIRST, longest: float = LONGEST
) -> Iterator[float]:
  """Pauses that double, with jitter: not all devices reconnect at once."""
  pause = first
  while True:
    yield pause * rng.uniform(0.5, 1.0)
    pause = min(longest, 2 * pause)


def _words_of(error: Exception) -> str:
  """An error in one line."""
  if isinstance(error, ConnectionRefusedError):
    return "nobody listens there"
  return " ".join(str(error).split()) or type(error).__name__
