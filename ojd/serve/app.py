"""The routes of the live view: access, the page, pictures, events.

/              the page          /overlay.mjpg  the pictures, one after another
/frame.jpg     the newest one    /events        news for the page, as they come
/metrics       for Prometheus    /healthz       says that the server is there

Every route is read-only. No request may have a body.
"""

import asyncio
import contextlib
import json
import logging
import pathlib
import time
import urllib.parse
from collections.abc import AsyncGenerator, Iterator
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.responses import PlainTextResponse as Text
from starlette.responses import Response as Answer
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ojd.serve import access, metrics
from ojd.serve import display as display_lib
from ojd.serve.painter import Painter

_LOG = logging.getLogger(__name__)
_NEWS_SECONDS = 0.25  # from one look at the display to the next
_HEARTBEAT_SECONDS = 10.0  # after which silence is broken
_PICTURE_SECONDS = 1.0  # to wait for a picture at a time
_LINGER_SECONDS = 0.5
_MAX_FIELDS = 8  # of a query
_NO_TOKEN = (pathlib.Path(__file__).parent / "assets" / "token.html").read_text(
  "utf-8"
)
# They keep browsers from doing more with an answer than to show it.
_HEADERS = {
  "Cache-Control": "no-store",
  "Connection": "close",
  "Content-Security-Policy": (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
  ),
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}


class File(NamedTuple):
  """A part of the page."""

  kind: str  # its media type
  content: bytes


class Slots:
  """Slots for viewers."""

  def __init__(self, num_free: int):
    self.num_free = num_free

  @contextlib.contextmanager
  def taken(self) -> Iterator[None]:
    """Takes a slot until the end of the block."""
    self.num_free -= 1
    try:
      yield
    finally:
      self.num_free += 1


class Site:
  """The application of a live view, in one event loop."""

  def __init__(
    self,
    display: display_lib.LiveDisplay,
    guard: access.Guard,
    *,
    is_loopback: bool,
    files: dict[str, File],
    num_viewers: int,
  ):
    """The painter starts when `painter.work` is awaited.

    Args:
      display: the state of the run.
      guard: checks the token.
      is_loopback: whether only this machine can reach the site.
      files: the page, by path.
      num_viewers: the most viewers of pictures, and as many of events.
    """
    self._display, self._guard, self._is_loopback = display, guard, is_loopback
    self.painter = Painter(display.latest)
    self.closing = asyncio.Event()
    self.picture_slots, self.news_slots = Slots(num_viewers), Slots(num_viewers)
    routes = {path: _shown(file) for path, file in files.items()} | {
      "/overlay.mjpg": self._overlay,
      "/frame.jpg": self._frame,
      "/events": self._events,
      "/metrics": self._metrics,
      "/healthz": self._health,
    }
    self._paths = frozenset(routes)
    app = Starlette(
      routes=[Route(path, show) for path, show in routes.items()],
      exception_handlers={404: _not_found},
    )
    app.router.redirect_slashes = False
    self._app: ASGIApp = app

  def close(self) -> None:
    """Sends every viewer the last picture and the last event."""
    self.closing.set()
    self.painter.close()

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or refuses it."""
    request = Request(scope)

    async def send_guarded(message):
      if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(_HEADERS)
      elif _has_body(request):
        await send(message | {"more_body": True})
        await _linger(receive)
        message = {"type": "http.response.body"}
      await send(message)

    answer = self._refusal(request) or self._app
    try:
      await answer(scope, receive, send_guarded)
    except Exception as error:  # a fault here: the run goes on
      _LOG.warning("the live view: %s", type(error).__name__)
      raise

  def _refusal(self, request):
    """Why a request is not answered; None if it may pass."""
    if request.method not in ("GET", "HEAD"):
      text = "this view can only be looked at: GET or HEAD\n"
      return Text(text, 405, {"Allow": "GET, HEAD"})
    if _has_body(request):
      return Text("no body is read\n", 413)
    if request.scope["http_version"] not in ("1.0", "1.1"):
      return Text("http version not supported\n", 505)
    if not request.scope["raw_path"].startswith(b"/"):
      return Text("bad request\n", 400)
    host = request.headers.get("Host", "").strip()
    if self._is_loopback and not access.is_local_host(host):
      text = "this view is served as localhost or 127.0.0.1 alone\n"
      return Text(text, 403)
    try:
      query = request.scope["query_string"].decode("ascii")
      fields = urllib.parse.parse_qs(query, max_num_fields=_MAX_FIELDS)
    except ValueError:
      return Text("bad request\n", 400)
    return self._refusal_by_token(request, fields.get("token"))

  def _refusal_by_token(self, request, tokens):
    guard, headers = self._guard, request.headers
    if not guard.needs_token:
      return None
    if tokens and guard.is_token(tokens[0]):
      path = request.scope["path"]
      location = path if path in self._paths else "/"
      cookie = {"Location": location, "Set-Cookie": guard.set_cookie()}
      return Text("", 303, cookie)
    known = guard.lets_pass(headers.get("Authorization"), headers.get("Cookie"))
    if known and not tokens:
      return None
    challenge = {"WWW-Authenticate": 'Bearer realm="ojd"'}
    return HTMLResponse(_NO_TOKEN, 401, challenge)

  async def _health(self, request):
    return Text("ok\n")

  async def _metrics(self, request):
    text = metrics.render(self._display.counts())
    return Answer(text, media_type=metrics.CONTENT_TYPE)

  async def _frame(self, request):
    number, picture = self._display.latest().number, None
    if number:
      with self.painter.watching():
        picture = await self.painter.wait(number, 3 * _PICTURE_SECONDS)
    if picture is None:
      return _come_back("no frame yet\n")
    return Answer(picture.jpeg, media_type="image/jpeg")

  async def _overlay(self, request):
    kind = "multipart/x-mixed-replace; boundary=frame"
    return _stream(request, kind, self.picture_slots, self._pictures())

  async def _events(self, request):
    kind = "text/event-stream; charset=utf-8"
    return _stream(request, kind, self.news_slots, self._news())

  async def _pictures(self):
    """Each picture as a part, with the boundary after it.

    Browsers show a part once they have seen where it ends.
    """
    painter, picture = self.painter, None
    number = max(1, self._display.latest().number)
    with painter.watching():
      yield b"--frame\r\n"
      while True:
        is_last = painter.is_over
        found = await painter.wait(number, _PICTURE_SECONDS)
        picture = found or picture
        if picture is not None and (found or not painter.is_over):
          number = picture.number + 1
          yield _part(picture)
        if found is None and is_last:
          return

  async def _news(self):
    """The news, a few times a second, as server-sent events."""
    cursor, silent_since = display_lib.UNSEEN, time.monotonic()
    while True:
      is_last = self.closing.is_set()
      news, cursor = self._display.news(cursor)
      if news is not None:
        text = json.dumps(news, allow_nan=False, separators=(",", ":"))
        yield f"data: {text}\n\n".encode()
        silent_since = time.monotonic()
      elif time.monotonic() - silent_since > _HEARTBEAT_SECONDS:
        yield b": still here\n\n"
        silent_since = time.monotonic()
      if is_last:
        return
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(self.closing.wait(), _NEWS_SECONDS)


def _shown(file):
  async def show(request):
    return Answer(file.content, media_type=file.kind)

  return show


async def _not_found(request, error):
  return Text("there is no such page\n", 404)


def _come_back(text):
  return Text(text, 503, {"Retry-After": "1"})


def _has_body(request):
  length = request.headers.get("Content-Length", "0")
  return length != "0" or "Transfer-Encoding" in request.headers


async def _linger(receive):
  """Reads a body for a moment: closing at once would lose the answer."""
  with contextlib.suppress(TimeoutError):
    async with asyncio.timeout(_LINGER_SECONDS):
      while (await receive()).get("more_body"):
        pass


def _stream(request, kind, slots, parts):
  """Sends parts as they come, if there is a slot for the viewer."""
  if request.method == "HEAD":
    return StreamingResponse(iter(()), media_type=kind)
  if not slots.num_free:
    return _come_back("too many viewers\n")
  return _Viewer(slots, parts, kind)


class _Viewer(StreamingResponse):
  """A stream that has a slot until it ends."""

  def __init__(self, slots: Slots, parts: AsyncGenerator[bytes], kind: str):
    super().__init__(parts, media_type=kind)
    self._slots, self._parts = slots, parts

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    with self._slots.taken():
      async with contextlib.aclosing(self._parts):
        await super().__call__(scope, receive, send)


def _part(picture):
  head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}"
  return head.encode() + b"\r\n\r\n" + picture.jpeg + b"\r\n--frame\r\n"
