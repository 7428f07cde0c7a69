"""`--serve`: the running overlay and live charts of a run, for browsers.

A thread a connection, each of which can fail or hang by itself; the run waits
for none of them. Everything is read-only, every route is fixed, and every
request is bounded in size, time and number.

/              the page          /overlay.mjpg  the pictures, one after another
/frame.jpg     the newest one    /events        news for the page, as they come
/metrics       for Prometheus    /healthz       says that the server is there
"""

import contextlib
import errno
import logging
import pathlib
import socket
import socketserver
import sys
import threading

from ojd.errors import UserError
from ojd.run import live_access, live_board, live_handler, report_style

_LOG = logging.getLogger(__name__)
_ASSETS = pathlib.Path(__file__).parent / "assets"
_FAREWELL_SECONDS = 1.0  # for viewers to take the last news
_CUT_SECONDS = 0.5  # for threads to notice that they were cut off
_POLL_SECONDS = 0.1
_FULL = (
  b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n"
  b"Content-Length: 17\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
  b"too many viewers\n"
)


class LiveView:
  """Serves a board from its making until `close`."""

  def __init__(
    self,
    address: str,
    token: str = "",
    limits: live_handler.Limits = live_handler.Limits(),  # noqa: B008
  ):
    """Listens, or raises a UserError in words for the flag `--serve`.

    Args:
      address: HOST:PORT; port 0 picks a free one.
      token: a secret, needed wherever others than this machine can look.
      limits: see there.
    """
    place = live_access.find_place(address, token)
    self._server = _listen(address, place, limits)
    port = self._server.server_address[1]
    self.url = _url(place, port)
    self.board = live_board.Board()
    self._server.site = live_handler.Site(
      self.board,
      live_access.Guard(token, port),
      is_loopback=place.is_loopback,
      files=_read_files(),
      limits=limits,
    )
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True
    )
    self._thread.start()

  def close(self) -> None:
    """Says to every viewer that it is over, and ends within two seconds."""
    site = self._server.site
    self.board.fail()
    site.closing.set()
    site.painter.close()
    self._server.shutdown()
    self._server.server_close()
    self._server.wait_for_viewers(_FAREWELL_SECONDS)
    self._server.cut_off()
    self._server.wait_for_viewers(_CUT_SECONDS)
    site.painter.join(_CUT_SECONDS)


def _listen(address, place, limits):
  try:
    return _Server(place, limits)
  except OSError as error:
    problems = {
      errno.EADDRINUSE: "the port is in use; name another, or 0 for a free one",
      errno.EADDRNOTAVAIL: "this machine has no such address",
      errno.EACCES: "not allowed here; ports from 1024 on are for everybody",
    }
    problem = problems.get(error.errno, error.strerror)
    raise UserError(f"--serve={address}: {problem}") from None


def _url(place, port):
  host = place.sockaddr[0]
  if host in ("0.0.0.0", "::"):
    host = socket.gethostname()
  return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _read_files():
  """The page, as it is served."""
  css = report_style.CSS + (_ASSETS / "live.css").read_text("utf-8")
  return {
    "/": ("text/html; charset=utf-8", (_ASSETS / "live.html").read_bytes()),
    "/live.css": ("text/css; charset=utf-8", css.encode()),
    "/live.js": (
      "text/javascript; charset=utf-8",
      (_ASSETS / "live.js").read_bytes(),
    ),
  }


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
  """Keeps count of its connections, so that all of them can be ended."""

  allow_reuse_address = True
  daemon_threads, block_on_close = True, False
  request_queue_size = 32
  site: live_handler.Site

  def __init__(self, place, limits):
    self.address_family = place.family
    self._max_connections = limits.num_connections
    self._connections: set[socket.socket] = set()
    self._changed = threading.Condition()
    super().__init__(place.sockaddr, live_handler.Handler)

  def process_request(self, request, client_address) -> None:
    """Answers in a thread, if there is room for one more."""
    with self._changed:
      is_full = len(self._connections) >= self._max_connections
      if not is_full:
        self._connections.add(request)
    if is_full:
      request.setblocking(False)
      with contextlib.suppress(OSError):
        request.send(_FULL)
      self.shutdown_request(request)
      return
    try:
      super().process_request(request, client_address)
    except BaseException:  # no thread could be started
      self._forget(request)
      raise

  def process_request_thread(self, request, client_address) -> None:
    """The whole life of a connection."""
    try:
      super().process_request_thread(request, client_address)
    finally:
      self._forget(request)

  def _forget(self, request):
    with self._changed:
      self._connections.discard(request)
      self._changed.notify_all()

  def handle_error(self, request, client_address) -> None:
    """Viewers hang up as they like; anything else is worth a line."""
    error = sys.exception()
    if not isinstance(error, OSError):
      _LOG.warning("the live view: %s", type(error).__name__)

  def wait_for_viewers(self, seconds: float) -> None:
    """Until all connections have ended, or for so long."""
    with self._changed:
      self._changed.wait_for(lambda: not self._connections, seconds)

  def cut_off(self) -> None:
    """Ends all connections, so that the threads behind them end."""
    with self._changed:
      connections = list(self._connections)
    for connection in connections:
      with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
