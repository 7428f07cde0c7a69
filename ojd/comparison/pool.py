"""Worker processes and the tasks that they share.

A worker that dies costs the task it was at; another one takes its place, and
that of one that has done many.
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import connection as mp_connection
from typing import Any

from ojd.comparison.tasks import Failed, Moved, Stopped

# A fresh interpreter, which imports what it needs and no binary. Ctrl-C is for
# whoever started it alone.
_CODE = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2]).serve(int(sys.argv[3]))
"""
WORKER = "ojd.comparison.worker"
_STDERR = 2
# Each run leaves some 2 MB in its process.
MOST_TASKS = 32
_LOOK_SECONDS = 0.2  # between looks at who wants to stop
_END_SECONDS = 5.0  # for an idle worker to end by itself


class _Worker:
  """One process and its end of the socket."""

  def __init__(self, module):
    ours, theirs = socket.socketpair()
    with theirs:
      self.connection = mp_connection.Connection(ours.detach())
      path = json.dumps([str(place) for place in sys.path])
      self.process = subprocess.Popen(
        [sys.executable, "-c", _CODE, path, module, str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        # What a teacher of one's own prints is no part of the table.
        stdout=_STDERR,
        pass_fds=(theirs.fileno(),),
        # Out of reach of the terminal's Ctrl-C, from the first moment on.
        start_new_session=True,
      )
    self.task: int | None = None  # what it is at
    self.num_tasks = 0

  def send(self, message):
    """One that is gone is noticed when it is listened to."""
    with contextlib.suppress(OSError):
      self.connection.send(message)

  def last_words(self):
    """How it ended, after its socket did."""
    try:
      code = self.process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
      return "closed its socket"
    if code >= 0:
      return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"

  def end(self):
    """Lets an idle one end by itself; one amid a task is killed."""
    if self.task is None:
      self.send(None)
      with contextlib.suppress(subprocess.TimeoutExpired):
        self.process.wait(_END_SECONDS)
    self.process.kill()
    self.process.wait()
    self.connection.close()


class Pool:
  """Runs tasks in at most so many processes, which are kept for the next."""

  def __init__(self, size: int, module: str = WORKER):
    """Starts nothing yet.

    Args:
      size: the most processes at a time.
      module: has `serve(fd)`, as the module of the workers.
    """
    self._size, self._module = size, module
    self._workers: list[_Worker] = []

  def run(
    self,
    tasks: Sequence[Any],
    *,
    told: Callable[[int, Any], None] = lambda index, message: None,
    should_stop: Callable[[], bool] = lambda: False,
  ) -> list[Any]:
    """Replies to the tasks, in their order; `Stopped` where one was not done.

    Args:
      tasks: what the workers take.
      told: called with the number of a task and each message about it.
      should_stop: asked all the time; workers then end their tasks early.
    """
    replies: list[Any] = [Stopped()] * len(tasks)
    waiting = list(enumerate(tasks))[::-1]
    is_stopping = False
    while waiting or self._busy():
      if not is_stopping and should_stop():
        is_stopping, waiting = True, []
        for worker in self._busy():
          worker.send(None)  # to be seen by the run, and then the end
      while waiting and len(self._busy()) < self._size:
        self._begin(*waiting.pop())
      for worker in self._ready():
        index, message = worker.task, self._hear(worker)
        if not isinstance(message, Moved):
          replies[index], worker.task = message, None
          self._retire(worker)
        told(index, message)
    return replies

  def close(self) -> None:
    """Ends all processes."""
    workers, self._workers = self._workers, []
    for worker in workers:
      worker.end()

  def _busy(self):
    return [worker for worker in self._workers if worker.task is not None]

  def _begin(self, index, task):
    idle = [worker for worker in self._workers if worker.task is None]
    if not idle:
      idle = [_Worker(self._module)]
      self._workers += idle
    idle[0].task = index
    idle[0].num_tasks += 1
    idle[0].send(task)

  def _retire(self, worker):
    """Lets one go that has done enough, if it has not gone already."""
    if worker in self._workers and worker.num_tasks >= MOST_TASKS:
      self._workers.remove(worker)
      worker.end()

  def _ready(self):
    """Busy workers that have something to say, were it their end."""
    by_connection = {worker.connection: worker for worker in self._busy()}
    if not by_connection:
      return []
    ready = mp_connection.wait(list(by_connection), _LOOK_SECONDS)
    # Processes that a worker started may keep its socket open.
    ended = [w for w in by_connection.values() if w.process.poll() is not None]
    return list({*(by_connection[x] for x in ready), *ended})

  def _hear(self, worker):
    try:
      # Asked first, lest its last message be missed.
      if worker.process.poll() is not None and not worker.connection.poll():
        raise EOFError
      return worker.connection.recv()
    except (EOFError, OSError):
      self._workers.remove(worker)
      message = Failed(f"its process {worker.last_words()}")
      worker.task = None
      worker.end()
      return message
