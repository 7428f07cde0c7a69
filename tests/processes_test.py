"""Child processes: messages, ends, and the trees below them."""

import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection

import pytest

from ojd import processes
from tests.waiting import is_gone, until

_SLEEP = [sys.executable, "-c", "import time; time.sleep(99)"]


def serve(socket, *files):
  """Does what it is told, and says so; the code of its end is the last word."""
  processes.end_with_parent()
  connection = Connection(socket)
  while (message := connection.recv()) is not None:
    if message == "start":
      connection.send(subprocess.Popen(_SLEEP).pid)
    elif message == "write":
      connection.send(os.write(files[0], b"hello"))
    elif isinstance(message, int):
      return message
    else:
      connection.send(message)
  return 0


@pytest.fixture
def child():
  made = processes.Child(f"{__name__}:serve")
  yield made
  made.kill()
  made.wait()


def _ask(child, message):
  child.send(message)
  assert child.has_message(20)
  return child.read()


def test_messages_go_both_ways_and_files_are_inherited():
  reading, writing = os.pipe()
  child = processes.Child(f"{__name__}:serve", writing)
  os.close(writing)
  assert _ask(child, ["any", 1.5]) == ["any", 1.5]
  assert not child.has_message() and not child.has_ended()
  assert _ask(child, "write") == 5 and os.read(reading, 9) == b"hello"
  os.close(reading)
  child.dismiss()
  assert child.process.wait() == 0
  child.send("too late")  # is no error


@pytest.mark.parametrize(
  ("end", "words"),
  [(3, "ended with code 3"), (signal.SIGKILL, "was ended by SIGKILL")],
)
def test_end_is_read_after_the_last_message(child, end, words):
  child.send("last")
  if end == 3:
    child.send(end)
  else:
    assert child.has_message(20)
    os.kill(child.pid, end)
  child.process.wait(20)
  assert processes.wait_any([child], 20) == [child]
  assert child.read() == "last"
  assert child.has_message()
  with pytest.raises(EOFError):
    child.read()
  assert child.how_it_ended() == words


def test_those_with_a_message_are_found(child):
  other = processes.Child(f"{__name__}:serve")
  assert processes.wait_any([child, other], 0.01) == []
  child.send("one")
  assert processes.wait_any([child, other], 20) == [child]
  assert processes.wait_any([], 20) == []
  other.dismiss()


def test_kill_ends_what_the_child_started(child):
  below = _ask(child, "start")
  child.kill()
  until(lambda: is_gone(below))
  child.wait()
  assert child.has_ended()
