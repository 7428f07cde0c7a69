"""One request to the live view: whether it may pass, and its answer."""

import contextlib
import json
import select
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from typing import NamedTuple

from ojd.run import (
  live_access,
  live_board,
  live_http,
  live_painter,
  prometheus,
)

_NEWS_SECONDS = 0.25  # from one look at the board to the next
_HEARTBEAT_SECONDS = 10.0  # after which silence is broken
_PICTURE_SECONDS = 1.0  # to wait for a picture at a time
_SEND_BUFFER = 1 << 17  # bytes that a slow viewer is behind at most
_NO_TOKEN = """<!DOCTYPE html>
<html lang="en"><title>Live view</title>
<link rel="icon" href="data:,">
<p>This live view needs its token: open it as <code>/?token=...</code>, or send
<code>Authorization: Bearer ...</code>.
<p>If you have just done so from a link: <a href="/">go on</a>.
"""


class Limits(NamedTuple):
  """What one viewer may take, and how many there are."""

  num_viewers: int = 16  # of pictures, and as many of news
  num_connections: int = 64  # at a time, of any kind
  head_bytes: int = 1 << 14
  head_seconds: float = 5.0  # from the connection to the whole request
  send_seconds: float = 10.0  # for one picture or one piece of news


class Site:
  """What all requests share."""

  def __init__(
    self,
    board: live_board.Board,
    guard: live_access.Guard,
    *,
    is_loopback: bool,
    files: dict[str, tuple[str, bytes]],
    limits: Limits,
  ):
    """Starts the painter.

    Args:
      board: what there is to see.
      guard: knows the token.
      is_loopback: whether only this machine can reach the site.
      files: content type and content by path.
      limits: see there.
    """
    self.board, self.guard, self.is_loopback = board, guard, is_loopback
    self.files, self.limits = files, limits
    self.painter = live_painter.Painter(board.latest)
    self.closing = threading.Event()
    self.news_slots = threading.Semaphore(limits.num_viewers)
    self.picture_slots = threading.Semaphore(limits.num_viewers)


class Handler(live_http.OneRequest):
  """Lets a request pass or not, and shows what it asks for."""

  @property
  def site(self) -> Site:
    return self.server.site

  def answer(self) -> None:
    if self.command not in ("GET", "HEAD"):
      self.send(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "this view can only be looked at: GET or HEAD\n",
        headers=[("Allow", "GET, HEAD")],
      )
      return
    # Before HTTP/1.0 there were no headers to be checked.
    if self.request_version not in ("HTTP/1.0", "HTTP/1.1"):
      self.send_error(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
      return
    hosts = self.headers.get_all("Host", [])
    if len(hosts) > 1 or not self.path.startswith("/"):
      self.send_error(HTTPStatus.BAD_REQUEST)
      return
    host = hosts[0].strip() if hosts else None
    if self.site.is_loopback and not live_access.is_local_host(host):
      self.send(
        HTTPStatus.FORBIDDEN,
        "this view is served as localhost or 127.0.0.1 alone\n",
      )
      return
    try:
      url = urllib.parse.urlsplit(self.path)
      query = urllib.parse.parse_qs(url.query, max_num_fields=8)
    except ValueError:
      self.send_error(HTTPStatus.BAD_REQUEST)
      return
    if self._may_pass(url.path, query.get("token")):
      self._route(url.path)

  def _may_pass(self, path, tokens):
    """Whether the request has the token; answers it where it has not."""
    guard = self.site.guard
    if guard.needs_token and tokens and guard.knows(tokens[0]):
      location = path if path in (*self.site.files, *_ROUTES) else "/"
      headers = [("Location", location), ("Set-Cookie", guard.set_cookie())]
      self.send(HTTPStatus.SEE_OTHER, "", headers=headers)
      return False
    authorization = self.headers.get("Authorization")
    is_known = guard.lets_pass(authorization, self.headers.get("Cookie"))
    if is_known and not (guard.needs_token and tokens):
      return True
    self.send(
      HTTPStatus.UNAUTHORIZED,
      _NO_TOKEN,
      "text/html; charset=utf-8",
      [("WWW-Authenticate", 'Bearer realm="ojd"')],
    )
    return False

  def _route(self, path):
    if path in self.site.files:
      kind, content = self.site.files[path]
      self.send(HTTPStatus.OK, content, kind)
    elif path in _ROUTES:
      _ROUTES[path](self)
    else:
      self.send(HTTPStatus.NOT_FOUND, "there is no such page\n")

  def _health(self):
    self.send(HTTPStatus.OK, "ok\n")

  def _metrics(self):
    text = prometheus.render(self.site.board.counts())
    self.send(HTTPStatus.OK, text, prometheus.CONTENT_TYPE)

  def _frame(self):
    number, picture = self.site.board.latest().number, None
    if number:
      with self.site.painter.watching():
        picture = self.site.painter.wait(number, 3 * _PICTURE_SECONDS)
    if picture is None:
      self._refuse("no frame yet\n")
    else:
      self.send(HTTPStatus.OK, picture.jpeg, "image/jpeg")

  def _refuse(self, text):
    headers = [("Retry-After", 1)]
    self.send(HTTPStatus.SERVICE_UNAVAILABLE, text, headers=headers)

  def _overlay(self):
    kind = "multipart/x-mixed-replace; boundary=frame"
    self._stream(kind, self.site.picture_slots, self._pictures())

  def _events(self):
    kind = "text/event-stream; charset=utf-8"
    self._stream(kind, self.site.news_slots, self._news())

  def _stream(self, kind, slots, parts: Iterator[bytes]):
    """Sends parts as they come, if there is room for one more viewer."""
    if self.command == "HEAD":
      self.send_head(HTTPStatus.OK, kind)
      return
    if not slots.acquire(blocking=False):
      self._refuse("too many viewers\n")
      return
    try:
      # What lies in a buffer is old when it arrives.
      self.connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER
      )
      self.send_head(HTTPStatus.OK, kind)
      with contextlib.closing(parts):
        for part in parts:
          self.wfile.write(part)
    finally:
      slots.release()

  def _pictures(self):
    """Each picture as a part, with the boundary after it.

    Browsers show a part once they have seen where it ends.
    """
    painter, picture = self.site.painter, None
    number = max(1, self.site.board.latest().number)
    with painter.watching():
      yield b"--frame\r\n"
      while not self._is_gone():
        is_last = painter.is_over
        found = painter.wait(number, _PICTURE_SECONDS)
        picture = found or picture
        if picture is not None and (found or not painter.is_over):
          number = picture.number + 1
          yield _part(picture)
        if found is None and is_last:
          return

  def _news(self):
    """What happened, a few times a second, as server-sent events."""
    cursor, silent_since = live_board.UNSEEN, time.monotonic()
    while not self._is_gone():
      is_last = self.site.closing.is_set()
      news, cursor = self.site.board.news(cursor)
      if news is not None:
        text = json.dumps(news, allow_nan=False, separators=(",", ":"))
        yield f"data: {text}\n\n".encode()
        silent_since = time.monotonic()
      elif time.monotonic() - silent_since > _HEARTBEAT_SECONDS:
        yield b": still here\n\n"
        silent_since = time.monotonic()
      if is_last:
        return
      self.site.closing.wait(_NEWS_SECONDS)

  def _is_gone(self):
    """Whether the viewer has hung up."""
    poll = select.poll()
    try:
      poll.register(self.connection, select.POLLIN)
      return bool(poll.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):  # it was cut off from here
      return True


def _part(picture):
  head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}"
  return head.encode() + b"\r\n\r\n" + picture.jpeg + b"\r\n--frame\r\n"


_ROUTES = {
  "/overlay.mjpg": Handler._overlay,
  "/frame.jpg": Handler._frame,
  "/events": Handler._events,
  "/metrics": Handler._metrics,
  "/healthz": Handler._health,
}
