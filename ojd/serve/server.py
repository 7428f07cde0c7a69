"""`--serve`: an HTTP server beside a run, which waits for no viewer.

One thread has uvicorn's event loop. Every connection is bounded in size, time
and number.
"""

import asyncio
import contextlib
import functools
import pathlib
import socket
import threading
from typing import NamedTuple

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ojd.network import listening
from ojd.report import pages
from ojd.serve import access, app
from ojd.serve.display import LiveDisplay

_ASSETS = pathlib.Path(__file__).parent / "assets"
_BACKLOG = 32
_FAREWELL_SECONDS = 1  # for viewers to take the last news
_END_SECONDS = 2.0
_SEND_BUFFER = 1 << 17  # bytes that a slow viewer is behind at most
_FULL = (
  b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n"
  b"Content-Length: 17\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
  b"too many viewers\n"
)


class Limits(NamedTuple):
  """Limits for one viewer, and the number of viewers."""

  num_viewers: int = 16  # of pictures, and as many of news
  num_connections: int = 64  # at a time, of any kind
  head_bytes: int = 1 << 14
  head_seconds: float = 5.0  # from the connection to the whole request
  send_seconds: float = 10.0  # for what is sent and not yet taken


class LiveView:
  """Serves a display from its construction until `close`."""

  def __init__(self, address: str, token: str = "", limits: Limits = Limits()):  # noqa: B008
    """Listens, or raises a UserError in words for the flag `--serve`.

    Args:
      address: HOST:PORT; port 0 picks a free one.
      token: a secret, needed if other machines can reach the address.
      limits: see there.
    """
    place = access.find_place(address, token)
    listener = listening.listen("--serve", address, place)
    port = listener.getsockname()[1]
    self.url = _url(place, port)
    self.display = LiveDisplay()
    self._loop = asyncio.new_event_loop()
    self._site = app.Site(
      self.display,
      access.Guard(token, port),
      is_loopback=place.is_loopback,
      files=_read_files(),
      num_viewers=limits.num_viewers,
    )
    self._server = uvicorn.Server(_config(self._site, limits))
    self._thread = threading.Thread(
      target=self._work, args=(listener,), daemon=True
    )
    self._thread.start()

  def close(self) -> None:
    """Tells every viewer that the run is over, and ends within two seconds."""
    self.display.fail()
    self._server.should_exit = True
    with contextlib.suppress(RuntimeError):  # the loop has ended already
      self._loop.call_soon_threadsafe(self._site.close)
    self._thread.join(_END_SECONDS)

  def _work(self, listener):
    with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
      runner.run(self._serve(listener))

  async def _serve(self, listener):
    painting = asyncio.create_task(self._site.painter.work())
    await self._server.serve([listener])
    for connection in list(self._server.server_state.connections):
      connection.transport.abort()
    await painting


def _config(site, limits):
  return uvicorn.Config(
    site,
    http=functools.partial(_Connection, limits=limits),
    ws="none",
    lifespan="off",
    interface="asgi3",
    # Silent: addresses may hold the token.
    log_config=None,
    log_level="critical",
    access_log=False,
    proxy_headers=False,
    server_header=False,
    date_header=False,
    headers=[("Server", "ojd")],
    backlog=_BACKLOG,
    h11_max_incomplete_event_size=limits.head_bytes,
    timeout_graceful_shutdown=_FAREWELL_SECONDS,
  )


class _Connection(H11Protocol):
  """A connection that is cut off if it asks or reads too slowly."""

  def __init__(self, *args, limits: Limits, **kwargs):
    super().__init__(*args, **kwargs)
    self._limits = limits
    self._head_timer: asyncio.TimerHandle | None = None
    self._send_timer: asyncio.TimerHandle | None = None

  def connection_made(self, transport) -> None:
    """Accepts the connection, if there is a slot."""
    super().connection_made(transport)
    if len(self.connections) > self._limits.num_connections:
      transport.write(_FULL)
      transport.close()
      return
    # What lies in a buffer is old when it arrives.
    transport.set_write_buffer_limits(high=0)
    transport.get_extra_info("socket").setsockopt(
      socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER
    )
    self._head_timer = self.loop.call_later(
      self._limits.head_seconds, self._check_head
    )

  def _check_head(self):
    if self.cycle is None:
      self.transport.abort()

  def pause_writing(self) -> None:
    """The viewer has not read all that was sent."""
    super().pause_writing()
    self._send_timer = self.loop.call_later(
      self._limits.send_seconds, self.transport.abort
    )

  def resume_writing(self) -> None:
    """The viewer has read everything."""
    super().resume_writing()
    if self._send_timer is not None:
      self._send_timer.cancel()

  def connection_lost(self, exc: Exception | None) -> None:
    """The end, for any reason."""
    for timer in (self._head_timer, self._send_timer):
      if timer is not None:
        timer.cancel()
    super().connection_lost(exc)


def _url(place, port):
  host = place.sockaddr[0]
  if host in ("0.0.0.0", "::"):
    host = socket.gethostname()
  return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _read_files():
  """The page, as it is served."""
  css = pages.asset("report.css") + (_ASSETS / "live.css").read_text("utf-8")
  html, js = "text/html; charset=utf-8", "text/javascript; charset=utf-8"
  return {
    "/": app.File(html, (_ASSETS / "live.html").read_bytes()),
    "/live.css": app.File("text/css; charset=utf-8", css.encode()),
    "/live.js": app.File(js, (_ASSETS / "live.js").read_bytes()),
  }
