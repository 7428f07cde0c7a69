"""Who may look at a run: where it is served, and the secret that it takes."""

import hashlib
import hmac
import ipaddress
import re
import socket
from typing import NamedTuple

from ojd.errors import UserError

_MAX_TOKEN = 256
_TOKEN = re.compile(r"[!-~]+")  # what a header takes as it is
_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+))(?::[0-9]{1,5})?", re.I)


class Place(NamedTuple):
  """Where to listen."""

  family: socket.AddressFamily
  sockaddr: tuple  # of `socket.bind`
  is_loopback: bool


def find_place(address: str, token: str) -> Place:
  """Resolves HOST:PORT; whatever others can reach needs a token.

  Raises a UserError where it is no address or has no token it needs.
  """
  place = resolve("--serve", address)
  check_token("--serve_token", token)
  if not place.is_loopback and not token:
    raise UserError(
      f"--serve={address} can be reached from other machines: give a secret by "
      "--serve_token=SECRET, or serve on 127.0.0.1"
    )
  return place


def resolve(flag: str, address: str) -> Place:
  """Where HOST:PORT is, or a UserError in words for the flag."""
  match = _ADDRESS.fullmatch(address)
  if not match or int(match[3]) > 65535:
    raise UserError(
      f"{flag}={address}: as HOST:PORT, 127.0.0.1:8080 for instance"
    )
  host, port = match[1] or match[2], int(match[3])
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
  except (OSError, UnicodeError):
    raise UserError(f"{flag}={address}: there is no host {host}") from None
  # localhost has two addresses; the older is the one that people type.
  found.sort(key=lambda entry: entry[0] != socket.AF_INET)
  family, _, _, _, sockaddr = found[0]
  is_loopback = ipaddress.ip_address(sockaddr[0].split("%")[0]).is_loopback
  return Place(family, sockaddr, is_loopback)


def check_token(flag: str, token: str) -> None:
  """Raises a UserError where a header could not hold it as it is."""
  # The secret itself is in no message.
  if token and not _TOKEN.fullmatch(token):
    raise UserError(
      f"{flag}: letters, digits and signs of ASCII, without spaces"
    )
  if len(token) > _MAX_TOKEN:
    raise UserError(f"{flag}: at most {_MAX_TOKEN} characters")


def is_local_host(header: str | None) -> bool:
  """Whether a Host header names this machine to itself.

  Any other name that leads to a loopback address was made to do so by somebody
  else's DNS, so that his page could read what is served here.
  """
  match = _HOST.fullmatch(header or "")
  if not match:
    return False
  host = match[1] or match[2]
  if host.lower() == "localhost":
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


class Guard:
  """Knows the token of a server; without one everybody may pass."""

  def __init__(self, token: str, port: int):
    self._token = token.encode()
    # Cookies know no ports: two runs of a machine have two names.
    self._cookie_name = f"ojd_view_{port}"
    digest = hmac.new(self._token, b"cookie of a live view", hashlib.sha256)
    self._cookie = digest.hexdigest()  # the browser does not keep the token

  @property
  def needs_token(self) -> bool:
    return bool(self._token)

  def knows(self, token: str) -> bool:
    """Whether this is the token."""
    return hmac.compare_digest(token.encode("utf-8", "replace"), self._token)

  def lets_pass(self, authorization: str | None, cookie: str | None) -> bool:
    """Whether a request's headers have the token, or the cookie for it."""
    if not self.needs_token:
      return True
    kind, _, value = (authorization or "").partition(" ")
    if kind.lower() == "bearer" and self.knows(value.strip()):
      return True
    return self._has_cookie(cookie or "")

  def _has_cookie(self, header):
    # Other programs' cookies may be of any shape.
    pairs = (part.strip().partition("=") for part in header.split(";"))
    values = [value for name, _, value in pairs if name == self._cookie_name]
    expected = self._cookie.encode()
    return any(hmac.compare_digest(v.encode(), expected) for v in values)

  def set_cookie(self) -> str:
    """The header that lets a browser pass from now on."""
    value = f"{self._cookie_name}={self._cookie}"
    return f"{value}; HttpOnly; SameSite=Strict; Path=/"
