"""A device reaches for its server: a connection, or why there is none."""

import contextlib
import ssl

from websockets import exceptions
from websockets.sync import client as websockets_client
from websockets.sync.client import ClientConnection

from ojd.edge import transport
from ojd.edge.access import Dial
from ojd.edge.transport import Timing


class Unreachable(Exception):
  """There is no connection now; another time there may be one."""


class Refused(Exception):
  """There will be none, however often it is tried."""


def connect(
  dial: Dial, timing: Timing, max_bytes: int, stack: contextlib.ExitStack
) -> ClientConnection:
  """A connection that ends with the stack.

  Args:
    dial: whom to speak to.
    timing: of the connection.
    max_bytes: of a message that comes.
    stack: closes it.

  Raises:
    Unreachable: or Refused, in one line.
  """
  headers = {}
  if dial.token:
    headers["Authorization"] = f"Bearer {dial.token}"
  try:
    connecting = websockets_client.connect(
      dial.url,
      ssl=dial.tls,
      additional_headers=headers,
      user_agent_header=None,
      max_size=max_bytes,
      proxy=None if dial.is_loopback else True,
      **transport.keep_alive(timing),
    )
    return stack.enter_context(connecting)
  except ssl.SSLCertVerificationError as error:
    raise Refused(
      f"the server is not who it says: {error.verify_message}"
    ) from None
  except exceptions.InvalidStatus as error:
    status = error.response.status_code
    if status == 401:
      raise Refused("the server refuses the token (HTTP 401)") from None
    raise Unreachable(f"HTTP {status}") from None
  except (OSError, exceptions.WebSocketException, EOFError) as error:
    raise Unreachable(words_of(error)) from None


def words_of(error: Exception) -> str:
  """An error in one line."""
  if isinstance(error, ConnectionRefusedError):
    return "nobody listens there"
  return " ".join(str(error).split()) or type(error).__name__
