"""Addresses to listen at, and secrets of clients."""

import errno
import hmac
import ipaddress
import re
import socket
from typing import NamedTuple

from ojd.errors import UserError

_MAX_TOKEN = 256
_TOKEN = re.compile(r"[!-~]+")  # what a header takes as it is
_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})")


class Place(NamedTuple):
  """Where to listen."""

  family: socket.AddressFamily
  sockaddr: tuple  # of `socket.bind`
  is_loopback: bool


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
  return Place(family, sockaddr, is_loopback(sockaddr[0].split("%")[0]))


def listen(flag: str, address: str, place: Place) -> socket.socket:
  """A socket that listens there, or a UserError in words for the flag."""
  try:
    return socket.create_server(place.sockaddr, family=place.family)
  except OSError as error:
    problems = {
      errno.EADDRINUSE: "the port is in use; name another, or 0 for a free one",
      errno.EADDRNOTAVAIL: "this machine has no such address",
      errno.EACCES: "not allowed here; ports from 1024 on are for everybody",
    }
    problem = problems.get(error.errno, error.strerror)
    raise UserError(f"{flag}={address}: {problem}") from None


def is_loopback(host: str) -> bool:
  """Whether a name or an address always means this machine."""
  if host.lower() == "localhost":
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def check_token(flag: str, token: str) -> None:
  """Raises a UserError if a header cannot hold it unchanged."""
  # The secret itself is in no message.
  if token and not _TOKEN.fullmatch(token):
    raise UserError(
      f"{flag}: letters, digits and signs of ASCII, without spaces"
    )
  if len(token) > _MAX_TOKEN:
    raise UserError(f"{flag}: at most {_MAX_TOKEN} characters")


def is_token(given: str, token: str) -> bool:
  """Whether this is the token, in constant time."""
  return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def is_bearer(authorization: str | None, token: str) -> bool:
  """Whether an Authorization header has the token."""
  kind, _, given = (authorization or "").partition(" ")
  return is_token(given.strip(), token) and kind.lower() == "bearer"
