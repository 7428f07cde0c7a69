"""A worker process and the two things it is reached by: socket and memory.

Neither has a name in any file system. However the two processes end, nothing is
left behind, and each sees the end of the other.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing import connection as mp_connection
from typing import Any

from ojd.teachers import worker

# A fresh interpreter: what `multiprocessing` starts would first import the
# asker's main module again, jax and all. Ctrl-C is for the asker alone.
_CODE = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ojd.teachers import worker
worker.serve(int(sys.argv[2]), int(sys.argv[3]))
"""
_LAST_SECONDS = 2.0  # for a worker that was let go to end by itself
_KILL_SECONDS = 10.0  # for the system to end one that was killed
_DEATH_SECONDS = 0.2  # from the end of its socket to the end of a process


class Child:
  """One start of a worker. A socket that breaks reads as its end."""

  def __init__(self, start: worker.Start):
    """Starts the process, and does not wait for it."""
    self.is_ready = self.has_answered = False  # kept by whoever talks to it
    self._is_over = False
    height, width = start.context.height, start.context.width
    ours, theirs = socket.socketpair()
    with theirs, _memory_file() as memory:
      os.ftruncate(memory.fileno(), worker.board_bytes(height, width))
      self._connection = mp_connection.Connection(ours.detach())
      self.board = worker.open_board(memory.fileno(), height, width)
      files = theirs.fileno(), memory.fileno()
      path = json.dumps([str(place) for place in sys.path])
      self.process = subprocess.Popen(
        [sys.executable, "-c", _CODE, path, *map(str, files)],
        stdin=subprocess.DEVNULL,
        pass_fds=files,
        # Out of reach of the terminal's Ctrl-C, from the first moment on.
        start_new_session=True,
      )
    # One that is gone already is noticed when it is listened to.
    with contextlib.suppress(OSError):
      self.send(start)

  def send(self, message: Any) -> None:
    """Raises an OSError where nobody is there."""
    self._connection.send(message)

  def has_message(self, seconds: float = 0.0) -> bool:
    """Whether `read` will not wait; waits so long for that."""
    # Asked first, lest its last message be missed. Processes that it started
    # may keep its socket open.
    self._is_over = self.has_ended()
    try:
      return self._connection.poll(seconds) or self._is_over
    except OSError:
      return True

  def read(self) -> Any:
    """The next message; raises an EOFError where there will be none."""
    try:
      if self._is_over and not self._connection.poll():
        raise EOFError
      return self._connection.recv()
    except OSError:
      raise EOFError from None

  def last_words(self) -> str:
    """How the process ended, once its socket has."""
    try:
      code = self.process.wait(_DEATH_SECONDS)
    except subprocess.TimeoutExpired:
      return "closed its socket"
    if code >= 0:
      return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"

  def kill(self) -> None:
    """At once; `has_ended` or `wait` must follow."""
    self.process.kill()
    self._connection.close()

  def dismiss(self) -> None:
    """Lets an idle worker end by itself, and waits a little for it."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
      self.send(None)
      self.process.wait(_LAST_SECONDS)
    self.kill()

  def has_ended(self) -> bool:
    return self.process.poll() is not None

  def wait(self) -> None:
    """For the end of a process that was killed."""
    # Should the system not be able to end it, no more is to be done here.
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.process.wait(_KILL_SECONDS)


def _memory_file():
  """A nameless file; of memory, where the system has such a thing."""
  if hasattr(os, "memfd_create"):
    return os.fdopen(os.memfd_create("ojd-board"), "r+b")
  return tempfile.TemporaryFile()
