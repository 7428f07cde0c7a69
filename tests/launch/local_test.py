"""The launchers as a person starts them."""

import os
import signal
import subprocess
import time

import psutil
import pytest

from tests import binaries, launches


@pytest.mark.parametrize(
  ("launcher", "words", "message"),
  (
    ("local", (), "name one table, not 0: a file, or one of smoke, "),
    ("local", ("nix",), "nix: there is no such table; bundled are smoke, "),
    ("local", ("thresholds", "--nix=3"), "Unknown command line flag 'nix'"),
    ("local", ("thresholds", "--only=nix"), "--only=nix: no run has that"),
    ("local", ("thresholds", "--cores=100000"), "--cores=100000: from 1 to"),
    ("local", ("thresholds", "--memory_gb=1"), "1.5 GB of memory, and there"),
    ("local", ("table2",), "$LVS is not set; export LVS="),
    ("slurm", ("thresholds",), "there is no srun here"),
    ("slurm", ("thresholds", "--time=1"), "--time=1: [DAYS-]HH:MM:SS"),
    ("ray", ("thresholds", "--address=127.0.0.1:1"), "Connection refused"),
    ("ray", ("thresholds", "--address=nix://"), "auto, local or HOST:PORT"),
  ),
)
def test_wrong_words_are_one_line(tmp_path, launcher, words, message):
  if launcher == "ray":
    pytest.importorskip("ray")
  environment = {k: v for k, v in os.environ.items() if k != "LVS"}
  output = () if not words else (f"--output={tmp_path}/out",)
  begin = time.monotonic()
  result = launches.launch(launcher, *words, *output, env=environment)
  binaries.assert_refused(result, message)
  assert not (tmp_path / "out").exists()
  assert time.monotonic() - begin < 60


def test_wrong_flag_of_a_binary_is_told_before_anything_starts(tmp_path):
  table = launches.table(tmp_path, [2], "2.ask_every = 'never'\n")
  result = launches.launch("local", table)
  assert result.returncode == 2
  words = "flag --ask_every=never: invalid literal for int() with base 10:"
  assert result.stderr == f"error: 2: {words} 'never'\n"
  assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_all_and_keeps_what_was_done(tmp_path):
  table = launches.table(tmp_path, [10**6])
  records = tmp_path / "out" / "1000000" / "answers.bin"
  process = subprocess.Popen(
    launches.command("local", table),
    **{"cwd": binaries.ROOT, "stderr": subprocess.PIPE, "text": True},
    start_new_session=True,
  )
  try:
    has_begun = lambda: records.exists() and records.stat().st_size
    launches.wait_for(has_begun, process)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) == 3  # two that look after the run, and the run
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=240)
  finally:
    process.kill()
  assert process.returncode == 130
  assert errors.splitlines()[-1] == "stopped; the same command resumes"
  assert "1000000: stopped\n" in errors
  assert not launches.processes(tmp_path)
  assert not any(process.is_running() for process in below)
  # The run ended as it does by itself, and said so.
  log = (tmp_path / "out" / "launch" / "1000000.log").read_text()
  assert "\nstopped: " in log
  listed = launches.launch("local", table, "--list")
  assert listed.stdout.startswith("missing  1000000  experiments.record --")


def test_failure_is_told_and_only_what_is_missing_runs_again(tmp_path):
  table, output = launches.table(tmp_path, [5, 3]), tmp_path / "out"
  spoilt = output / "5"
  spoilt.mkdir(parents=True)
  (spoilt / "mine.txt").touch()
  first = launches.launch("local", table, "--cores=1")
  assert first.returncode == 1  # after the other one, which goes on
  line = first.stderr.splitlines()[-1]
  assert line.startswith(f"failed: 5: code 2: error: {spoilt} holds files")
  assert line.endswith(f"({output}/launch/5.log)")
  assert first.stdout == "1 of 2 runs are done\n"
  done = output / "launch" / "3.json"
  before = done.stat().st_mtime_ns
  (spoilt / "mine.txt").unlink()
  second = launches.launch("local", table)
  assert second.returncode == 0, second.stderr
  assert "3: " not in second.stderr and "2/2 done" in second.stderr
  assert second.stdout == "2 of 2 runs are done\n"
  assert done.stat().st_mtime_ns == before
  third = launches.launch("local", table, "--list")
  assert [line.split()[0] for line in third.stdout.splitlines()] == ["done"] * 2
