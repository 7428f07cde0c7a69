"""One HTTP request on a connection, bounded in size and time.

The parsing is the standard library's; what it lacks is here: a time for the
whole head, answers that tell nothing of the request, and headers that keep
browsers from doing more with an answer than to show it.
"""

import abc
import contextlib
import http.server
import io
import re
import socket
import time
from http import HTTPStatus

_CHUNK = 4096  # bytes read at a time
_LINGER = (0.5, 1 << 16)  # seconds, bytes
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_HEADERS = (
  ("Cache-Control", "no-store"),
  ("Connection", "close"),
  (
    "Content-Security-Policy",
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
  ),
  ("Cross-Origin-Resource-Policy", "same-origin"),
  ("Referrer-Policy", "no-referrer"),
  ("X-Content-Type-Options", "nosniff"),
)


def read_head(
  connection: socket.socket, max_bytes: int, seconds: float
) -> bytes:
  """The request up to its blank line; empty where none comes in time.

  Raises an OverflowError where it is too long.
  """
  head, deadline = bytearray(), time.monotonic() + seconds
  # The end may lie across two chunks.
  while not _END_OF_HEAD.search(head, max(0, len(head) - _CHUNK - 3)):
    left = deadline - time.monotonic()
    if left <= 0:
      return b""
    connection.settimeout(left)
    try:
      chunk = connection.recv(_CHUNK)
    except TimeoutError:
      return b""
    if not chunk:
      return b""
    head += chunk
    if len(head) > max_bytes:
      raise OverflowError("the request is too long")
  return bytes(head)


class OneRequest(http.server.BaseHTTPRequestHandler, abc.ABC):
  """Reads a request, lets `answer` answer it, and closes.

  Bodies are never read. The server has the limits in `site.limits`.
  """

  protocol_version = "HTTP/1.1"

  @abc.abstractmethod
  def answer(self) -> None:
    """Answers what has been parsed."""

  def handle(self) -> None:
    limits = self.server.site.limits
    self.close_connection = True
    self.command = self.requestline = ""
    try:
      head = read_head(self.connection, limits.head_bytes, limits.head_seconds)
    except OverflowError:
      head = None
    self.connection.settimeout(limits.send_seconds)
    if head is None:
      self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    elif head:
      self.rfile = io.BytesIO(head)
      self.raw_requestline = self.rfile.readline()
      if self.parse_request():
        self.answer()
    self._linger()

  def _linger(self):
    """Closing on bytes that nobody read would take the answer back."""
    seconds, num_bytes = _LINGER
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):
      self.connection.shutdown(socket.SHUT_WR)
      self.connection.settimeout(seconds)
      while num_bytes > 0 and time.monotonic() < deadline:
        chunk = self.connection.recv(_CHUNK)
        if not chunk:
          return
        num_bytes -= len(chunk)

  def version_string(self) -> str:
    """The Server header."""
    return "ojd"

  def log_message(self, format, *args) -> None:
    """Says nothing: addresses may hold the token."""

  def send_error(self, code, message=None, explain=None) -> None:
    """Answers what is no request, without repeating it."""
    del message, explain
    self.request_version = "HTTP/1.1"
    self.command = ""
    self.send(code, f"{HTTPStatus(code).phrase.lower()}\n")

  def send(
    self, code, body, kind="text/plain; charset=utf-8", headers=()
  ) -> None:
    """A whole answer; without its body where that is not wanted."""
    content = body.encode() if isinstance(body, str) else body
    self.send_head(code, kind, [("Content-Length", len(content)), *headers])
    if self.command != "HEAD":
      self.wfile.write(content)

  def send_head(self, code, kind, headers=()) -> None:
    """The head of an answer whose body is of some kind."""
    self.send_response(code)
    for name, value in (("Content-Type", kind), *_HEADERS, *headers):
      self.send_header(name, str(value))
    self.end_headers()
