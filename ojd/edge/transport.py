"""What both ends of a WebSocket connection have in common."""

import logging
import socket
import struct
import sys
from typing import NamedTuple

# Whoever is sent away hears why by another way; a library's words about every
# connection that breaks off are for nobody.
LOGGER = logging.getLogger("ojd.edge.transport")
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False


class Timing(NamedTuple):
  """Seconds."""

  heartbeat: float = 10.0  # between signs of life
  timeout: float = 60.0  # after which a peer without any is dead
  opening: float = 10.0  # for the handshake of a connection
  closing: float = 2.0


def keep_alive(timing: Timing) -> dict[str, object]:
  """What either end tells `websockets` of its timing."""
  return {
    "ping_interval": timing.heartbeat,
    "ping_timeout": timing.timeout,
    "open_timeout": timing.opening,
    "close_timeout": timing.closing,
    "compression": None,  # weights and pictures are as small as they get
    "logger": LOGGER,
  }


def bound_sends(connection: socket.socket, seconds: float) -> None:
  """A peer that takes nothing for so long is an error, and not a wait.

  Pings would never tell: they wait behind what is being sent.
  """
  connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  if sys.platform == "win32":
    return
  whole, part = divmod(seconds, 1)
  interval = struct.pack("ll", int(whole), int(1e6 * part))
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
