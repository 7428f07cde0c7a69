"""A run that is going on, and two processes that look after it.

No process of a run is left, whichever process is killed. One process writes
what the run prints to a log, and how it ended into the registry. When the
starter asks for it through its socket, or dies, the run gets SIGTERM and some
time to end; then it is killed, and so is, however it ends, all that it started
and left behind. The other process waits. Whichever of them is killed, the one
that is left ends the run: who kills a starter may kill its children too, but
not theirs.
"""

import contextlib
import datetime
import fcntl
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NamedTuple

from ojd import processes

# The processes that look after a run load no more than they need.
if TYPE_CHECKING:
  from launch.registry import Registry
  from launch.runs import Run

GRACE_SECONDS = 30.0  # from the wish that a run ends to its end by force
# Beyond these, for the system to end what was killed.
_LAST_SECONDS = 15.0
_LOOK_SECONDS = 0.1
_IS_LINUX = sys.platform == "linux"
# What the starter says: the end of the socket is a STOP as well.
STOP, KILL, _END = "stop", "kill", ""


class Order(NamedTuple):
  """What is to be run, and how."""

  command: list[str]  # what follows `python -m`
  folder: str  # where it is run
  log: str
  record: str
  environment: dict[str, str]  # beside the inherited one
  cores: list[int]  # on which it may run; none: on all
  grace: float  # seconds from SIGTERM to SIGKILL


def caps(cores: int) -> dict[str, str]:
  """Variables that keep the libraries of a run to so many threads."""
  names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
  # NPROC is how many XLA believes that there are.
  return dict.fromkeys((*names, "NPROC"), str(cores))


class Supervised:
  """One start of a run. Neither outlives the process that made it."""

  def __init__(
    self,
    run: "Run",
    registry: "Registry",
    *,
    cores: int | Sequence[int],
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
    grace: float = GRACE_SECONDS,
  ):
    """Starts the run.

    Args:
      run: what to start.
      registry: where its log and its end are written.
      cores: how many it may use, or which.
      environment: variables beside those of this process.
      folder: in which the command is meant; here by default.
      grace: seconds that it has to end after the request.
    """
    self.grace = grace
    folder = folder or os.getcwd()
    which = [] if isinstance(cores, int) else list(cores)
    order = Order(
      command=list(run.command),
      folder=folder,
      log=str(pathlib.Path(folder, registry.log(run))),
      record=str(pathlib.Path(folder, registry.record(run))),
      environment={**caps(len(which) or cores), **(environment or {})},
      cores=which,
      grace=grace,
    )
    self._process = processes.Child(
      f"{__name__}:serve", cwd=folder, stdout=subprocess.DEVNULL
    )
    self._process.send(order)

  def poll(self) -> int | None:
    """The exit code, None while the run goes on."""
    code = self._process.process.poll()
    if code is not None:
      self._process.connection.close()
    return code

  def wait(self, seconds: float | None = None) -> int | None:
    """The exit code; None where the run goes on after so many seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.process.wait(seconds)
    return self.poll()

  def stop(self) -> None:
    """Asks the run to end, and does not wait for it."""
    self._process.send(STOP)

  def end(self) -> None:
    """Ends the run and all that it started, and waits for that."""
    self.stop()
    self.wait(self.grace + _LAST_SECONDS)
    self.kill()

  def kill(self) -> None:
    """The same at once."""
    self._process.send(KILL)
    if self.wait(_LAST_SECONDS) is None:
      self._process.kill()
      self.wait(_LAST_SECONDS)


def serve(socket: int) -> int:
  """Runs the Order that comes first; its exit code, as shells have it."""
  _ignore_signals()
  starter = Connection(socket)
  os.set_inheritable(socket, False)
  try:
    order: Order = starter.recv()
  except (EOFError, OSError):
    return 128 + signal.SIGTERM
  guard = os.getpid()
  processes.adopt_orphans()
  pid = os.fork()
  if pid == 0:
    return _supervise(order, starter, guard)
  _, status = os.waitpid(pid, 0)
  code = os.waitstatus_to_exitcode(status)
  if code < 0:
    processes.kill_descendants()
  return _as_shells_do(code)


def _supervise(order, starter, guard):
  """The exit code of the run, which is in the registry then."""
  processes.adopt_orphans()
  if _IS_LINUX and order.cores:
    os.sched_setaffinity(0, order.cores)
  begin = time.monotonic()
  with open(order.log, "ab", buffering=0) as log:
    os.dup2(log.fileno(), sys.stderr.fileno())  # for what goes wrong here
    if not _claim(log, starter, guard):
      return 128 + signal.SIGTERM
    log.write(f"$ python -m {' '.join(order.command)}\n".encode())
    try:
      run = _start(order, log)
      is_whole = _watch(run, order.grace, starter, guard)
    finally:
      processes.kill_descendants()
  code = _as_shells_do(run.wait())
  # Cut short here, it was not this run's own end, whatever its code.
  code = code if is_whole else code or 128 + signal.SIGTERM
  _write(order, code, time.monotonic() - begin)
  return code


def _claim(log, starter, guard):
  """Waits for an earlier start of the same run to end; whether it did.

  The lock is let go when the last process that writes to the log is gone.
  """
  while True:
    try:
      fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    except BlockingIOError:
      pass
    except OSError:  # a file system without locks
      return True
    if _hear(starter) is not None or os.getppid() != guard:
      return False


def _as_shells_do(code):
  return 128 - code if code < 0 else code


def _ignore_signals():
  """Leaves Ctrl-C and the like to the starter, who has the socket.

  A scheduler signals all processes at once: the run hears for itself what
  should end it, and the others are for the program that submitted it.
  """
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: None)  # the run's own is as ever
  for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)  # and so the run's


def _start(order, log):
  parent = os.getpid()

  return subprocess.Popen(
    [sys.executable, "-m", *order.command],
    cwd=order.folder,
    env={**os.environ, **order.environment},
    stdin=subprocess.DEVNULL,
    stdout=log,
    stderr=log,
    # There are no threads here, which alone make this unsafe.
    preexec_fn=lambda: processes.die_with(parent),
  )


def _watch(run, grace, starter, guard):
  """Waits for the end of the run; whether it came by itself."""
  deadline, is_open = math.inf, True
  while run.poll() is None:
    word = _hear(starter if is_open else None)
    if word == KILL or time.monotonic() >= deadline:
      run.kill()
      return False
    is_wanted = word is None and os.getppid() == guard
    if not is_wanted and deadline == math.inf:
      run.terminate()
      deadline = time.monotonic() + grace
    is_open = is_open and word != _END
  return deadline == math.inf


def _hear(starter):
  """What the starter says, _END at the socket's end, None without news."""
  if starter is None:
    time.sleep(_LOOK_SECONDS)
    return None
  try:
    return starter.recv() if starter.poll(_LOOK_SECONDS) else None
  except (EOFError, OSError):
    return _END


def _write(order, code, seconds):
  # What it takes to load is no part of the run.
  from ojd.run import workdir

  content = {
    "command": order.command,
    "code": code,
    "seconds": round(seconds, 3),
    "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "host": os.uname().nodename,
  }
  workdir.write_json(pathlib.Path(order.record), content)
