"""Access to the live view: the names of this machine, and the secret."""

import hashlib
import hmac
import re

from ojd.errors import UserError
from ojd.network import listening

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+))(?::[0-9]{1,5})?", re.I)


def find_place(address: str, token: str) -> listening.Place:
  """Resolves HOST:PORT; an address that others can reach needs a token.

  Raises a UserError if it is no address, or lacks a token that it needs.
  """
  place = listening.resolve("--serve", address)
  listening.check_token("--serve_token", token)
  if not place.is_loopback and not token:
    raise UserError(
      f"--serve={address} can be reached from other machines: give a secret by "
      "--serve_token=SECRET, or serve on 127.0.0.1"
    )
  return place


def is_local_host(header: str) -> bool:
  """Whether a Host header names this machine to itself.

  Another name that resolves to a loopback address comes from somebody else's
  DNS, whose page could then read what is served here.
  """
  match = _HOST.fullmatch(header)
  return bool(match) and listening.is_loopback(match[1] or match[2])


class Guard:
  """Checks the token of a server; without a token everybody passes."""

  def __init__(self, token: str, port: int):
    self._token = token
    # Cookies know no ports: two runs of a machine have two names.
    self._cookie_name = f"ojd_view_{port}"
    words = (token.encode(), b"cookie of a live view", hashlib.sha256)
    self._cookie = hmac.new(*words).hexdigest()  # no browser keeps the token

  @property
  def needs_token(self) -> bool:
    return bool(self._token)

  def is_token(self, token: str) -> bool:
    """Whether this is the token."""
    return listening.is_token(token, self._token)

  def lets_pass(self, authorization: str | None, cookie: str | None) -> bool:
    """Whether a request's headers have the token, or the cookie for it."""
    if not self.needs_token or listening.is_bearer(authorization, self._token):
      return True
    # Other programs' cookies may be of any shape.
    pairs = (part.strip().partition("=") for part in (cookie or "").split(";"))
    values = [value for name, _, value in pairs if name == self._cookie_name]
    return any(listening.is_token(value, self._cookie) for value in values)

  def set_cookie(self) -> str:
    """The header that lets a browser pass from now on."""
    value = f"{self._cookie_name}={self._cookie}"
    return f"{value}; HttpOnly; SameSite=Strict; Path=/"
