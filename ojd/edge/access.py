"""Access to a server, addresses of servers, and the timing of connections.

A connection is a WebSocket, with TLS and a token on addresses that other
machines can reach.
"""

import logging
import os
import pathlib
import socket
import ssl
import struct
import sys
import urllib.parse
from typing import NamedTuple

from ojd.errors import UserError
from ojd.network import listening
from ojd.network.listening import Place

TOKEN_VARIABLE = "OJD_TOKEN"
_MAX_TOKEN_FILE = 4096  # bytes
# Whoever is sent away hears why by another way; a library's words about every
# connection that breaks off are for nobody.
_LOGGER = logging.getLogger("ojd.edge")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False


class Access(NamedTuple):
  """Where a server listens, and what a client must show."""

  place: Place
  token: str = ""  # empty: everybody is heard
  tls: ssl.SSLContext | None = None

  def lets_pass(self, authorization: str | None) -> bool:
    """Whether this Authorization header has the token."""
    return not self.token or listening.is_bearer(authorization, self.token)


def read_token(path: str) -> str:
  """The token of a file, else of the environment; empty without either.

  It is not a flag: all users of a machine can read the flags of a process.
  """
  where, token = f"${TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE, "")
  if path:
    where = f"--token_file={path}"
    try:
      with open(path, "rb") as file:
        token = file.read(_MAX_TOKEN_FILE).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
      words = getattr(error, "strerror", None) or "no text"
      raise UserError(f"{where}: {words}") from None
    if not token:
      raise UserError(f"{where}: it holds no token")
  listening.check_token(where, token)
  return token


def server_access(
  address: str, token: str, tls_cert: str, tls_key: str
) -> Access:
  """The access to a server at HOST:PORT, checked.

  Raises:
    UserError: other machines can reach it, without TLS or without a token; or
      an address or a certificate is invalid.
  """
  place = listening.resolve("--listen", address)
  tls = _server_tls(tls_cert, tls_key)
  missing = [] if tls else ["--tls_cert and --tls_key"]
  missing += [] if token else [f"--token_file (or ${TOKEN_VARIABLE})"]
  if missing and not place.is_loopback:
    raise UserError(
      f"--listen={address} can be reached from other machines: give "
      f"{' and '.join(missing)}, or listen on 127.0.0.1"
    )
  return Access(place, token, tls)


def _server_tls(cert, key):
  if not cert and not key:
    return None
  if not (cert and key):
    raise UserError("--tls_cert and --tls_key go together")
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context.minimum_version = ssl.TLSVersion.TLSv1_2
  for flag, path in (("--tls_cert", cert), ("--tls_key", key)):
    if not pathlib.Path(path).is_file():
      raise UserError(f"{flag}={path}: no such file")
  try:
    # Nobody could type the password of an encrypted key.
    context.load_cert_chain(cert, key, password=lambda: "")
  except (ssl.SSLError, OSError, ValueError):
    raise UserError(
      f"--tls_cert={cert} --tls_key={key}: no certificate with its key, in PEM"
    ) from None
  return context


class Dial(NamedTuple):
  """The server of a device."""

  url: str
  token: str
  tls: ssl.SSLContext | None
  is_loopback: bool


def client_dial(url: str, token: str, tls_ca: str) -> Dial:
  """The server at ws://HOST:PORT or wss://HOST:PORT, checked.

  Raises:
    UserError: the address is invalid, or the token would travel unencrypted.
  """
  try:
    parts = urllib.parse.urlsplit(url)
    is_whole = parts.scheme in ("ws", "wss") and parts.hostname
    is_whole = is_whole and not parts.username and (parts.port or 1)
  except ValueError:
    is_whole = False
  if not is_whole:
    raise UserError(
      f"--server={url}: as ws://HOST:PORT or wss://HOST:PORT, "
      "ws://127.0.0.1:7777 for instance"
    )
  is_loopback = listening.is_loopback(parts.hostname)
  if parts.scheme == "ws":
    if token and not is_loopback:
      raise UserError(
        f"--server={url}: the token would travel unencrypted; use wss://"
      )
    if tls_ca:
      raise UserError("--tls_ca needs a wss:// address")
    return Dial(url, token, None, is_loopback)
  try:
    context = ssl.create_default_context(cafile=tls_ca or None)
  except (OSError, ssl.SSLError):
    raise UserError(f"--tls_ca={tls_ca}: no certificates, in PEM") from None
  return Dial(url, token, context, is_loopback)


class Timing(NamedTuple):
  """Seconds."""

  heartbeat: float = 10.0  # between signs of life
  timeout: float = 60.0  # without a sign of life, after which a peer is dead
  opening: float = 10.0  # for the handshake of a connection
  closing: float = 2.0


def keep_alive(timing: Timing) -> dict[str, object]:
  """The timing that both ends give to `websockets`."""
  return {
    "ping_interval": timing.heartbeat,
    "ping_timeout": timing.timeout,
    "open_timeout": timing.opening,
    "close_timeout": timing.closing,
    "compression": None,  # weights and pictures are as small as they get
    "logger": _LOGGER,
  }


def bound_sends(connection: socket.socket, seconds: float) -> None:
  """Makes a peer that reads nothing for so long an error.

  Pings cannot do this: they wait behind the data that is being sent.
  """
  connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  if sys.platform == "win32":
    return
  whole, part = divmod(seconds, 1)
  interval = struct.pack("ll", int(whole), int(1e6 * part))
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
