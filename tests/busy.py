"""What launches start in tests: `python -m tests.busy FOLDER WHAT`.

end CODE     prints a line and ends
leave        starts two processes that would stay, and ends
wait         until SIGTERM, which ends it cleanly
stubborn     starts the same two, and hears no signal but SIGKILL
once         as `wait` for the first time, and ends with 0 after that

All processes write their numbers to FOLDER/pids; FOLDER/begun has the arguments
of each start.
"""

import os
import pathlib
import signal
import sys
import time

_SECONDS = 600.0  # for which it stays where nobody ends it


def main() -> int:
  """Does what the words say."""
  folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
  folder.mkdir(parents=True, exist_ok=True)
  is_first = not (folder / "begun").exists()
  if what in ("leave", "stubborn"):
    _start_others(folder)
  if what in ("wait", "once"):
    signal.signal(signal.SIGTERM, _end_cleanly)
  _write(folder / "pids", os.getpid())
  _write(folder / "begun", sys.argv[1:])
  if what == "end":
    print("a line\n\nthe last line", flush=True)
    return int(sys.argv[3])
  if what == "leave" or (what == "once" and not is_first):
    return 0
  time.sleep(_SECONDS)
  return 1


def _end_cleanly(number, frame):
  del frame
  _write(pathlib.Path(sys.argv[1]) / "ended", number)
  sys.exit(128 + number)


def _start_others(folder):
  """One in a session of its own, and one whose parent is gone."""
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  for is_orphan in (False, True):
    pid = os.fork()
    if pid == 0:
      os.setsid()
      if is_orphan and os.fork():
        os._exit(0)
      _write(folder / "pids", os.getpid())
      time.sleep(_SECONDS)
      os._exit(0)
    if is_orphan:
      os.waitpid(pid, 0)
  pids = folder / "pids"
  while not pids.exists() or pids.read_text().count("\n") < 2:
    time.sleep(0.01)


def _write(path, what):
  with path.open("a") as file:
    file.write(f"{what}\n")


if __name__ == "__main__":
  sys.exit(main())
