"""The server's sockets: WebSocket connections of devices, each in two threads.

One thread receives, the other sends. So a device that reads its update slowly
delays neither other devices nor the trainer.
"""

import collections
import contextlib
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from websockets import exceptions
from websockets.sync import server as websockets_server

from ojd.edge import access as access_lib
from ojd.edge.access import Access, Timing
from ojd.edge.registry import Capacity, Registry
from ojd.edge.session import Rules
from ojd.edge.store import Store
from ojd.edge.training import Trainer, make_parts
from ojd.network import listening
from ojd.run.config import RunConfig

_MAX_WAITING = 64  # messages for a device that does not take them
_TICK_SECONDS = 0.5
_CLOSE_SECONDS = 5.0


class Traffic(NamedTuple):
  """Bytes of messages, without those of the protocols below."""

  up: int = 0
  down: int = 0


class Server:
  """Listens from its construction to `close`."""

  def __init__(
    self,
    address: str,
    access: Access,
    registry: Registry,
    timing: Timing = Timing(),  # noqa: B008, a constant
  ):
    """Listens, or raises a UserError in words for the flag `--listen`.

    Args:
      address: as a person gave it.
      access: address, TLS and token.
      registry: of the devices; it is closed with the server.
      timing: of the connections.
    """
    self._registry = registry
    self._access, self._timing = access, timing
    self.traffic = Traffic()
    self._lock = threading.Lock()
    # Connections before their Hello count too.
    self._free = threading.Semaphore(2 * registry.capacity.max_sessions + 16)
    self._closing = threading.Event()
    self._server = self._listen(address)
    # Before it gets a thread or a handshake.
    self._server.handler = self._bounded(self._server.handler)
    host, port = self._server.socket.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    self.url = f"{'ws' if access.tls is None else 'wss'}://{host}:{port}"
    self._threads = [
      threading.Thread(target=target, name=name, daemon=True)
      for target, name in (
        (self._server.serve_forever, "accept"),
        (self._tick, "tick"),
      )
    ]
    for thread in self._threads:
      thread.start()

  def _listen(self, address):
    return websockets_server.serve(
      self._talk,
      sock=listening.listen("--listen", address, self._access.place),
      ssl=self._access.tls,
      # A page in a browser must not connect to a server on its user's machine.
      origins=[None],
      process_request=self._admit,
      max_size=self._registry.capacity.max_bytes,
      max_queue=2,
      server_header=None,
      **access_lib.keep_alive(self._timing),
    )

  def _bounded(self, handler: Callable):
    def handle(connection, address):
      if not self._free.acquire(blocking=False):
        connection.close()
        return
      try:
        with contextlib.suppress(OSError):
          access_lib.bound_sends(connection, self._timing.timeout)
        handler(connection, address)
      finally:
        self._free.release()

    return handle

  def _admit(self, connection, request):
    """None, or the answer that refuses the client."""
    headers = request.headers.get_all("Authorization")
    if self._access.lets_pass(headers[0] if len(headers) == 1 else None):
      return None
    return connection.respond(HTTPStatus.UNAUTHORIZED, "no such token\n")

  def _talk(self, connection):
    peer = _Peer(connection, self._count)
    sender = threading.Thread(target=peer.send, name="send", daemon=True)
    sender.start()
    try:
      # A client that sends no first message is not waited for.
      seconds = self._timing.opening
      while not peer.is_closed:
        data = connection.recv(timeout=seconds)
        seconds = None
        data = data.encode() if isinstance(data, str) else data
        self._count(Traffic(up=len(data)))
        self._registry.receive(peer, data)
    except (exceptions.ConnectionClosed, TimeoutError, OSError):
      pass
    finally:
      self._registry.left(peer)
      peer.close()
      sender.join()

  def _count(self, traffic):
    with self._lock:
      both = zip(self.traffic, traffic, strict=True)
      self.traffic = Traffic(*(a + b for a, b in both))

  def _tick(self):
    while not self._closing.wait(_TICK_SECONDS):
      self._registry.tick()

  def close(self) -> None:
    """Closes every connection, and ends."""
    self._closing.set()
    self._registry.close()
    ending = threading.Thread(target=self._server.shutdown, daemon=True)
    ending.start()
    ending.join(_CLOSE_SECONDS)
    for thread in self._threads:
      thread.join(_CLOSE_SECONDS)


class RunningServer(NamedTuple):
  """A running server and its parts."""

  registry: Registry
  server: Server
  trainer: Trainer

  def close(self, seconds: float) -> None:
    """Ends everything, after waiting so long for the training round."""
    self.server.close()
    self.trainer.join(seconds)


def serve(
  config: RunConfig,
  address: str,
  access: Access,
  *,
  rules: Rules = Rules(),  # noqa: B008, a constant
  capacity: Capacity = Capacity(),  # noqa: B008, a constant
  timing: Timing = Timing(),  # noqa: B008, a constant
  store: Store | None = None,
  note_fn: Callable[[str], None] = lambda line: None,
) -> RunningServer:
  """Serves devices by the teacher and the system of a checked config.

  Args:
    config: of teacher, system and student.
    address: HOST:PORT as a person gave it.
    access: address, TLS and token.
    rules: for devices; the system decides the type of values.
    capacity: limits for all devices together.
    timing: of the connections.
    store: keeps devices' weights; None: devices send them.
    note_fn: called with a line about what happens, from any thread.

  Raises:
    UserError: why this cannot be served.
  """
  parts = make_parts(config)
  try:
    rules = rules._replace(dtype=parts.dtype)
    registry = Registry(
      parts.offer, rules, capacity, store=store, note_fn=note_fn
    )
    server = Server(address, access, registry, timing)
  except BaseException:
    parts.labeler.close()
    raise
  trainer = Trainer(registry, parts.systems, parts.labeler)
  return RunningServer(registry, server, trainer)


class _Peer:
  """A device's connection; the thread in `send` sends what is put."""

  def __init__(self, connection, count: Callable[[Traffic], None]):
    self._connection, self._count = connection, count
    self._waiting: collections.deque[bytes] = collections.deque()
    self._changed = threading.Condition()
    self.is_closed, self._is_sending = False, False

  @property
  def is_idle(self) -> bool:
    """Whether all is sent that was put."""
    with self._changed:
      return not (self._waiting or self._is_sending)

  def put(self, data: bytes) -> None:
    """Queues a message; a device that does not read is disconnected."""
    with self._changed:
      if self.is_closed:
        return
      self._waiting.append(data)
      self.is_closed = len(self._waiting) > _MAX_WAITING
      self._changed.notify()

  def close(self) -> None:
    """Ends the connection when all is sent that was put."""
    with self._changed:
      self.is_closed = True
      self._changed.notify()

  def send(self) -> None:
    """Sends messages until the connection ends."""
    # Whatever it is, the other end is gone.
    with contextlib.suppress(exceptions.ConnectionClosed, OSError):
      while (data := self._next()) is not None:
        self._connection.send(data)
        self._count(Traffic(down=len(data)))
    self.close()
    self._connection.close()

  def _next(self):
    with self._changed:
      self._is_sending = False
      self._changed.wait_for(lambda: self._waiting or self.is_closed)
      self._is_sending = bool(self._waiting)
      return self._waiting.popleft() if self._waiting else None
