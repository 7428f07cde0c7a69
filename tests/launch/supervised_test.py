"""Runs under supervision, with real processes: their ends, and nobody left."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from launch import registry as registry_lib
from launch import supervised
from tests import binaries, launches

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
_SECONDS = 30.0


def _start(tmp_path, *words, grace=10.0, cores=1):
  return supervised.Supervised(
    *(launches.run(tmp_path, *words), launches.registry(tmp_path)),
    **{"cores": cores, "folder": str(binaries.ROOT), "grace": grace},
  )


def _begin(tmp_path, *words, **options):
  """Starts it, and waits for its first words."""
  task = _start(tmp_path, *words, **options)
  _wait_for(tmp_path / "run" / "begun")
  return task


def _wait_for(path):
  launches.wait_for(lambda: path.exists() and path.read_text().endswith("\n"))


def _pids(tmp_path):
  return (tmp_path / "run" / "pids").read_text().split()


def _living(tmp_path):
  """Processes of the run that still work."""
  return [*filter(launches.is_living, _pids(tmp_path))]


def _assert_all_go(tmp_path):
  launches.wait_for(lambda: not _living(tmp_path))


def _record(tmp_path):
  return json.loads((tmp_path / "launch" / "run.json").read_text())


@pytest.mark.parametrize("code", (0, 3))
def test_end_is_in_the_registry_and_words_in_the_log(tmp_path, code):
  task, registry = (
    _start(tmp_path, "end", str(code)),
    launches.registry(tmp_path),
  )
  assert task.wait(_SECONDS) == code == task.poll()
  run = launches.run(tmp_path, "end", str(code))
  assert registry.is_done(run) == (code == 0)
  assert not registry.is_done(launches.run(tmp_path, "end", "4"))
  assert _record(tmp_path)["command"] == list(run.command)
  assert registry_lib.last_line(registry.log(run)) == "the last line"
  task.end()  # changes nothing
  assert task.poll() == code
  # The registry forget a run whose folder is gone.
  (tmp_path / "run").rename(tmp_path / "away")
  assert not registry.is_done(run)


@pytest.mark.parametrize("is_scheduler", (True, False))
def test_told_to_stop_it_gets_one_sigterm_and_ends_by_itself(
  tmp_path, is_scheduler
):
  task = _begin(tmp_path, "wait")
  # Schedulers send to all processes of a job; their other signals end nobody.
  pid = task._process.pid
  os.killpg(pid, signal.SIGUSR2)
  time.sleep(0.3)
  assert task.poll() is None
  for _ in range(1 if is_scheduler else 2):
    os.killpg(pid, signal.SIGTERM) if is_scheduler else task.stop()
  assert task.wait(_SECONDS) == 143
  assert (tmp_path / "run" / "ended").read_text() == "15\n"
  assert _record(tmp_path)["code"] == 143


def test_what_hears_no_signal_is_killed_after_its_grace(tmp_path):
  task = _begin(tmp_path, "stubborn", grace=0.5)
  assert len(_living(tmp_path)) == 3
  begin = time.monotonic()
  task.end()
  assert 0.5 <= time.monotonic() - begin < 10
  assert task.poll() == 137
  assert not _living(tmp_path)


def test_kill_does_not_wait_for_the_grace(tmp_path):
  task = _begin(tmp_path, "stubborn", grace=100.0)
  task.stop()
  begin = time.monotonic()
  task.kill()
  assert time.monotonic() - begin < 10
  assert not _living(tmp_path)


def test_what_a_run_leaves_running_ends_with_it(tmp_path):
  task = _start(tmp_path, "leave")
  assert task.wait(_SECONDS) == 0
  assert len(_pids(tmp_path)) == 3
  assert not _living(tmp_path)


@pytest.mark.parametrize(
  ("who", "what"),
  (
    *itertools.product(("guard", "supervisor"), ("wait", "stubborn")),
    ("both", "wait"),
  ),
)
def test_nothing_outlives_whoever_looks_after_it(tmp_path, who, what):
  task = _begin(tmp_path, what, grace=0.5)
  guard = psutil.Process(task._process.pid)
  (supervisor,) = guard.children()
  killed = {"guard": [guard], "supervisor": [supervisor]}
  killed = killed.get(who, [supervisor, guard])
  for process in killed:  # stopped, or one would see the other's end
    process.suspend()
  for process in killed:
    process.kill()
  _assert_all_go(tmp_path)  # whether or not the starter looks
  assert task.wait(_SECONDS) == (137 if who == "supervisor" else -9)
  # The one who is left has the pipe and the time to say it kindly.
  is_kind = (who, what) == ("guard", "wait")
  assert (tmp_path / "run" / "ended").exists() == is_kind


def test_second_start_of_a_run_waits_for_the_first_to_end(tmp_path):
  first, begun = _begin(tmp_path, "once"), tmp_path / "run" / "begun"
  second, third = _start(tmp_path, "once"), _start(tmp_path, "once")
  time.sleep(0.5)
  assert begun.read_text().count("\n") == 1
  third.stop()
  assert third.wait(_SECONDS) == 143
  first.stop()
  assert (first.wait(_SECONDS), second.wait(_SECONDS)) == (143, 0)
  assert begun.read_text().count("\n") == 2
  assert _record(tmp_path)["code"] == 0


_STARTER = """
import pathlib, sys, time
from tests.launch import supervised_test as test
task = test._start(pathlib.Path(sys.argv[1]), sys.argv[2], grace=0.5)
time.sleep(60)
"""


@pytest.mark.parametrize("what", ("wait", "stubborn"))
def test_nothing_outlives_a_starter_that_was_killed(tmp_path, what):
  command = [sys.executable, "-c", _STARTER, tmp_path, what]
  starter = subprocess.Popen(command, cwd=binaries.ROOT)
  _wait_for(tmp_path / "run" / "begun")
  starter.kill()
  starter.wait()
  _assert_all_go(tmp_path)
  # It was given the time to end.
  assert (tmp_path / "run" / "ended").exists() == (what == "wait")
  _wait_for(tmp_path / "launch" / "run.json")


def test_run_has_its_cores_and_as_many_threads(tmp_path):
  core = max(os.sched_getaffinity(0))
  task = _begin(tmp_path, "wait", cores=[core])
  (pid,) = map(int, _pids(tmp_path))
  assert os.sched_getaffinity(pid) == {core}
  lines = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
  assert {b"OMP_NUM_THREADS=1", b"NPROC=1"} <= set(lines)
  task.end()
