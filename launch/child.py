"""Two processes that look after one run, so that nothing of it is left behind.

    python -m launch.child ORDER        # JSON of Order; stdin is a pipe

One writes what the run prints to a log, and how it ended into the books. When
the starter says so through the pipe, or dies in whatever way, the run gets
SIGTERM and some time to end; then it is killed, and so is, however it ends, all
that it started and left behind. The other one waits. Whichever of them is
killed, the one that is left ends the run: who kills a starter may kill its
children too, but not theirs.
"""

import contextlib
import ctypes
import datetime
import fcntl
import json
import math
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from typing import NamedTuple

_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # of prctl(2)
_LOOK_SECONDS = 0.1
_KILL_SECONDS = 10.0  # for the system to end what was killed
_IS_LINUX = sys.platform == "linux"
# What the starter says: the end of the pipe is a STOP as well.
STOP, KILL = b"s", b"k"


class Order(NamedTuple):
  """What is to be run, and how."""

  command: list[str]  # what follows `python -m`
  folder: str  # where it is run
  log: str
  record: str
  environment: dict[str, str]  # beside the inherited one
  cores: list[int]  # on which it may run; none: on all
  grace: float  # seconds from SIGTERM to SIGKILL


def main() -> int:
  """Runs what the order says; its exit code, as shells tell it."""
  order = Order(**json.loads(sys.argv[1]))
  _ignore_signals()
  guard = os.getpid()
  _adopt()
  pid = os.fork()
  if pid == 0:
    return _supervise(order, guard)
  _, status = os.waitpid(pid, 0)
  code = os.waitstatus_to_exitcode(status)
  if code < 0:
    _end_descendants()
  return _as_shells_do(code)


def _supervise(order, guard):
  """The exit code of the run, which is in the books then."""
  _adopt()
  if _IS_LINUX and order.cores:
    os.sched_setaffinity(0, order.cores)
  begin = time.monotonic()
  with open(order.log, "ab", buffering=0) as log:
    os.dup2(log.fileno(), sys.stderr.fileno())  # for what goes wrong here
    if not _claim(log, guard):
      return 128 + signal.SIGTERM
    log.write(f"$ python -m {' '.join(order.command)}\n".encode())
    try:
      run = _start(order, log)
      is_whole = _watch(run, order.grace, guard)
    finally:
      _end_descendants()
  code = _as_shells_do(run.wait())
  # Cut short here, it was not this run's own end, whatever its code.
  code = code if is_whole else code or 128 + signal.SIGTERM
  _write(order, code, time.monotonic() - begin)
  return code


def _claim(log, guard):
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
    if _hear(is_open=True) is not None or os.getppid() != guard:
      return False


def _as_shells_do(code):
  return 128 - code if code < 0 else code


def _adopt():
  """Makes whatever loses its parent down there this process's child."""
  if _IS_LINUX:
    ctypes.CDLL(None).prctl(_SET_SUBREAPER, 1)


def _ignore_signals():
  """Leaves Ctrl-C and the like to the starter, who has the pipe.

  A scheduler signals all processes at once: the run hears for itself what
  should end it, and the others are for whoever submitted it.
  """
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: None)  # the run's own is as ever
  for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)  # and so the run's


def _start(order, log):
  parent = os.getpid()

  def die_with_parent():
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
      os._exit(1)

  return subprocess.Popen(
    [sys.executable, "-m", *order.command],
    cwd=order.folder,
    env={**os.environ, **order.environment},
    stdin=subprocess.DEVNULL,
    stdout=log,
    stderr=log,
    # There are no threads here, which alone make this unsafe.
    preexec_fn=die_with_parent if _IS_LINUX else None,
  )


def _watch(run, grace, guard):
  """Waits for the end of the run; whether it came by itself."""
  deadline, is_open = math.inf, True
  while run.poll() is None:
    word = _hear(is_open)
    if word == KILL or time.monotonic() >= deadline:
      run.kill()
      return False
    is_wanted = word is None and os.getppid() == guard
    if not is_wanted and deadline == math.inf:
      run.terminate()
      deadline = time.monotonic() + grace
    is_open = is_open and word != b""
  return deadline == math.inf


def _hear(is_open):
  """A letter, nothing at the pipe's end, None where there is no news."""
  pipe = [0] if is_open else []
  ready, _, _ = select.select(pipe, [], [], _LOOK_SECONDS)
  return os.read(0, 1) if ready else None


def _end_descendants():
  """Kills all that is left, also what was started while this went on."""
  deadline = time.monotonic() + _KILL_SECONDS
  while time.monotonic() < deadline:
    found = _descendants()
    for pid in found:
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    if not found:
      return
    time.sleep(_LOOK_SECONDS / 10)


def _descendants():
  """Living processes below this one."""
  children: dict[int, list[tuple[int, str]]] = {}
  for entry in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      words = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
      continue
    children.setdefault(int(words[1]), []).append((int(entry.name), words[0]))
  found, open_ends = [], [os.getpid()]
  while open_ends:
    for pid, state in children.get(open_ends.pop(), []):
      open_ends.append(pid)
      if state not in "ZX":
        found.append(pid)
  return found


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


if __name__ == "__main__":
  sys.exit(main())
