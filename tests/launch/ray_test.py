"""Runs as tasks of a Ray that is started for these tests."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests import binaries

pytest.importorskip("ray")
pytestmark = [
  pytest.mark.slow,  # a Ray takes ten seconds to start
  pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
_SECONDS = 60


def _start(tmp_path, *whats):
  (tmp_path / "launch").mkdir()
  return subprocess.Popen(
    [sys.executable, "-m", "tests.ray_launch", str(tmp_path), *whats],
    cwd=binaries.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _wait_for(is_true, process):
  deadline = time.monotonic() + _SECONDS
  while not is_true():
    assert time.monotonic() < deadline and process.poll() is None
    time.sleep(0.05)


def _processes(folder, word=""):
  """Living processes with the folder, and the word, on their command line."""
  found = []
  for entry in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      line = (entry / "cmdline").read_text()
      if str(folder) in line and word in line:
        found.append(int(entry.name))
  return found


def _parent(pid):
  stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
  return int(stat.rpartition(")")[2].split()[1])


def _all_gone(folder):
  deadline = time.monotonic() + _SECONDS
  while _processes(folder) and time.monotonic() < deadline:
    time.sleep(0.05)
  return not _processes(folder)


def test_runs_end_as_they_do_elsewhere(tmp_path):
  process = _start(tmp_path, "end 0", "end 3", "leave")
  out, errors = process.communicate(timeout=_SECONDS)
  assert process.returncode == 0, errors
  assert out.count("refused: a run of this table takes") == 3
  assert "r0: done in" in out and "r2: done in" in out
  assert f"r1: code 3: the last line ({tmp_path}/launch/r1.log)" in out
  assert "Ended(num_done=2, failed=" in out
  assert _all_gone(tmp_path)


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_interrupt_leaves_nothing_running(tmp_path, number):
  process = _start(tmp_path, "wait", "stubborn", "wait")
  begun = [tmp_path / f"r{i}" / "begun" for i in range(2)]
  _wait_for(lambda: all(path.exists() for path in begun), process)
  process.send_signal(number)
  out, _ = process.communicate(timeout=_SECONDS)
  assert process.returncode == 128 + number
  assert "Ended(num_done=0, failed=[], num_left=3)" in out
  assert (tmp_path / "r0" / "ended").read_text() == "15\n"
  assert not (tmp_path / "r2").exists()  # there was no place for it
  assert _all_gone(tmp_path)


def test_launcher_that_is_killed_leaves_nothing_running(tmp_path):
  process = _start(tmp_path, "wait", "stubborn")
  begun = [tmp_path / f"r{i}" / "begun" for i in range(2)]
  _wait_for(lambda: all(path.exists() for path in begun), process)
  process.kill()
  process.communicate(timeout=_SECONDS)
  assert _all_gone(tmp_path)


def test_run_whose_worker_dies_begins_again(tmp_path):
  process = _start(tmp_path, "once")
  begun = tmp_path / "r0" / "begun"
  _wait_for(begun.exists, process)
  run = min(_processes(tmp_path, "tests.busy"))
  guard = _parent(_parent(run))
  os.kill(_parent(guard), signal.SIGKILL)
  out, errors = process.communicate(timeout=_SECONDS)
  assert process.returncode == 0, errors
  assert "Ended(num_done=1, failed=[], num_left=0)" in out
  assert len(begun.read_text().splitlines()) == 2
