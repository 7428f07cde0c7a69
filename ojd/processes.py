"""Child processes: messages, time limits, and the end of a whole tree.

A child is a fresh interpreter that calls a function with one end of a socket.
The socket has no name in any file system: however the processes end, nothing is
left behind, and each sees the end of the other. Killing a child kills what it
started.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import connection as mp_connection
from typing import Any

import psutil

# Not `multiprocessing`, which would import the caller's main module again, jax
# and all. Ctrl-C is for the parent alone.
_CODE = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
module, _, name = sys.argv[2].partition(":")
function = getattr(importlib.import_module(module), name)
sys.exit(function(*map(int, sys.argv[3:])))
"""
_LAST_SECONDS = 2.0  # for a dismissed child to end by itself
_KILL_SECONDS = 10.0  # for the system to end what was killed
_DEATH_SECONDS = 0.2  # from the end of its socket to the end of a process
_LOOK_SECONDS = 0.25
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # of prctl(2)
_IS_LINUX = sys.platform == "linux"


class Child:
  """A process and this end of its socket; a broken socket reads as its end."""

  def __init__(
    self,
    target: str,
    *files: int,
    cwd: str | pathlib.Path | None = None,
    stdout: Any = None,
  ):
    """Starts the process, and does not wait for it.

    Args:
      target: package.module:function, called with the file descriptor of the
        child's end of the socket, then those of `files`. Its result is the exit
        code.
      *files: file descriptors that the child inherits.
      cwd: the folder of the child; this process's by default.
      stdout: as for Popen.
    """
    ours, theirs = socket.socketpair()
    with theirs:
      self.connection = mp_connection.Connection(ours.detach())
      inherited = theirs.fileno(), *files
      path = json.dumps([os.path.abspath(place) for place in sys.path])
      try:
        self.process = subprocess.Popen(
          [sys.executable, "-c", _CODE, path, target, *map(str, inherited)],
          cwd=cwd,
          stdin=subprocess.DEVNULL,
          stdout=stdout,
          pass_fds=inherited,
          # Out of reach of the terminal's Ctrl-C, from the first moment on.
          start_new_session=True,
        )
      except BaseException:
        self.connection.close()
        raise
    self._is_over = False

  @property
  def pid(self) -> int:
    return self.process.pid

  def send(self, message: Any) -> None:
    """Sends a message; a child that is gone is noticed when it is read."""
    with contextlib.suppress(OSError):
      self.connection.send(message)

  def has_message(self, seconds: float = 0.0) -> bool:
    """Whether `read` will not wait; waits for that at most `seconds`."""
    # Asked first, lest its last message be missed. Processes that the child
    # started may keep its socket open.
    self._is_over = self.has_ended()
    try:
      return self.connection.poll(seconds) or self._is_over
    except OSError:
      return True

  def read(self) -> Any:
    """The next message; raises an EOFError where there will be none."""
    try:
      if self._is_over and not self.connection.poll():
        raise EOFError
      return self.connection.recv()
    except OSError:
      raise EOFError from None

  def how_it_ended(self, seconds: float = _DEATH_SECONDS) -> str:
    """In words, once its socket has ended; waits so long for the process."""
    try:
      code = self.process.wait(seconds)
    except subprocess.TimeoutExpired:
      return "closed its socket"
    if code >= 0:
      return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"

  def has_ended(self) -> bool:
    return self.process.poll() is not None

  def wait(self, seconds: float = _KILL_SECONDS) -> None:
    """Waits for the end of the process, at most so long."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.process.wait(seconds)

  def kill(self) -> None:
    """Kills the child and what it started; `wait` or `has_ended` follows."""
    if not self.has_ended():
      kill_tree(self.pid)
    self.connection.close()

  def dismiss(self, seconds: float = _LAST_SECONDS) -> None:
    """Tells an idle child to end by sending None, and kills it after a time."""
    self.send(None)
    self.wait(seconds)
    self.kill()


def wait_any(children: list[Child], seconds: float) -> list[Child]:
  """The children with a message or at their end; waits at most so long."""
  by_connection = {child.connection: child for child in children}
  if not by_connection:
    return []
  mp_connection.wait(list(by_connection), seconds)
  return [child for child in children if child.has_message()]


def kill_tree(pid: int) -> None:
  """Kills a process and all below it."""
  with contextlib.suppress(psutil.Error):
    root = psutil.Process(pid)
    root.suspend()  # it starts no more
    tree = [*root.children(recursive=True), root]
    for process in tree:
      with contextlib.suppress(psutil.Error):
        process.kill()


def kill_descendants() -> None:
  """Kills all below this process, also what is started meanwhile."""
  deadline = time.monotonic() + _KILL_SECONDS
  while time.monotonic() < deadline:
    left = 0
    for process in psutil.Process().children(recursive=True):
      with contextlib.suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
          left += 1
          process.kill()
    if not left:
      return
    time.sleep(0.01)


def adopt_orphans() -> None:
  """Makes what loses its parent below this process a child of this process."""
  if _IS_LINUX:
    ctypes.CDLL(None).prctl(_SET_SUBREAPER, 1)


def die_with(parent: int) -> None:
  """Has the system kill this process at its parent's end; after a fork.

  The end of the thread that forked counts as well: a process with threads uses
  `end_with_parent` in the child.
  """
  if _IS_LINUX:
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
      os._exit(1)


def end_with_parent(grace: float = 0.0) -> None:
  """Ends this process when its parent has ended, and so many seconds later."""
  parent = os.getppid()

  def watch():
    while os.getppid() == parent:
      time.sleep(_LOOK_SECONDS)
    time.sleep(grace)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
