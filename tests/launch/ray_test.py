"""Runs as tasks of a Ray that is started for these tests."""

import signal
import subprocess
import sys

import psutil
import pytest

from tests import binaries, launches

pytest.importorskip("ray")
pytestmark = [
  pytest.mark.slow,  # a Ray takes ten seconds to start
  pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
_SECONDS = 60


def _start(tmp_path, *whats):
  launches.registry(tmp_path)
  return subprocess.Popen(
    [sys.executable, "-m", "tests.ray_launch", str(tmp_path), *whats],
    cwd=binaries.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _begin(tmp_path, *whats):
  """Starts it, and waits for its first two runs."""
  process = _start(tmp_path, *whats)
  begun = [tmp_path / f"r{i}" / "begun" for i in range(len(whats[:2]))]
  launches.wait_for(lambda: all(x.exists() for x in begun), process)
  return process


def _assert_all_go(folder):
  launches.wait_for(lambda: not launches.processes(folder))


def test_runs_end_as_they_do_elsewhere(tmp_path):
  process = _start(tmp_path, "end 0", "end 3", "leave")
  out, errors = process.communicate(timeout=_SECONDS)
  assert process.returncode == 0, errors
  assert out.count("refused: a run of this table takes") == 3
  assert "r0: done in" in out and "r2: done in" in out
  assert f"r1: code 3: the last line ({tmp_path}/launch/r1.log)" in out
  assert "Ended(num_done=2, failed=" in out
  _assert_all_go(tmp_path)


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_interrupt_leaves_nothing_running(tmp_path, number):
  process = _begin(tmp_path, "wait", "stubborn", "wait")
  process.send_signal(number)
  out, _ = process.communicate(timeout=_SECONDS)
  assert process.returncode == 128 + number
  assert "Ended(num_done=0, failed=[], num_left=3)" in out
  assert (tmp_path / "r0" / "ended").read_text() == "15\n"
  assert not (tmp_path / "r2").exists()  # there was no place for it
  _assert_all_go(tmp_path)


def test_launcher_that_is_killed_leaves_nothing_running(tmp_path):
  process = _begin(tmp_path, "wait", "stubborn")
  process.kill()
  process.communicate(timeout=_SECONDS)
  _assert_all_go(tmp_path)


def test_run_whose_worker_dies_begins_again(tmp_path):
  process = _begin(tmp_path, "once")
  run = min(launches.processes(tmp_path, "tests.busy"))
  _, _, worker, *_ = psutil.Process(run).parents()
  worker.kill()
  out, errors = process.communicate(timeout=_SECONDS)
  assert process.returncode == 0, errors
  assert "Ended(num_done=1, failed=[], num_left=0)" in out
  begun = (tmp_path / "r0" / "begun").read_text()
  assert len(begun.splitlines()) == 2
