"""The recorder as a person starts it, and the run that replays it."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest

from ojd.streams import base
from ojd.teachers import recorded
from tests import binaries

TRUTH = "--teacher=ground_truth"
SMALL = ("--height=48", "--width=64", TRUTH)
STREAM = "--stream=synthetic:street?num_frames=40"


def _metrics(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  return [
    {k: v for k, v in json.loads(line).items() if not k.startswith("ms_")}
    for line in lines
  ]


@pytest.mark.slow  # two whole runs
def test_replayed_run_equals_the_first(tmp_path):
  made = binaries.run("record", STREAM, *SMALL, f"--out={tmp_path / 'rec'}")
  assert made.returncode == 0, made.stderr
  assert "40 frames recorded" in made.stdout
  for name in ("ground_truth", f"recorded:path={tmp_path / 'rec'}"):
    path = tmp_path / name.partition(":")[0]
    flags = (f"--teacher={name}", f"--workdir={path}", "--nooverlay")
    run = binaries.run("online_distill", STREAM, *SMALL, *flags)
    assert run.returncode == 0, run.stderr
  first, second = (
    _metrics(tmp_path / name) for name in ("ground_truth", "recorded")
  )
  assert len(first) == 40
  assert first == second
  # Another stream is refused before anything is written.
  run = binaries.run(
    *("online_distill", "--stream=synthetic:park?num_frames=40", *SMALL),
    *(
      f"--teacher=recorded:path={tmp_path / 'rec'}",
      f"--workdir={tmp_path / 'x'}",
    ),
  )
  binaries.assert_refused(run, "another stream", "park")
  assert not (tmp_path / "x").exists()


def test_smoke_run_leaves_a_recording(tmp_path):
  result = binaries.run("record", "--smoke", TRUTH, f"--out={tmp_path / 'r'}")
  assert result.returncode == 0, result.stderr
  assert "24 frames recorded" in result.stdout
  record = recorded.Recording(tmp_path / "r")
  assert record.frames == list(range(24))
  assert record.description.teacher == "ground_truth"
  # On a recording that is whole the same command has nothing to do.
  again = binaries.run("record", "--smoke", TRUTH, f"--out={tmp_path / 'r'}")
  assert again.returncode == 0
  assert "24 frames recorded" in again.stdout
  assert "went on from frame 24" in again.stdout
  other = binaries.run(
    "record", "--smoke", TRUTH, f"--out={tmp_path / 'r'}", "--ask_every=2"
  )
  binaries.assert_refused(other, "every (1, now 2)")


def test_window_of_a_stream_is_recorded(tmp_path):
  window = ("--start_frame=10", "--every=4")
  flags = (STREAM, *SMALL, *window, f"--out={tmp_path / 'r'}")
  result = binaries.run("record", *flags, "--ask_every=2")
  assert result.returncode == 0, result.stderr
  record = recorded.Recording(tmp_path / "r")
  assert record.description.num_frames == 8  # 10, 14, ..., 38
  assert record.frames == [0, 2, 4, 6]
  stream = base.open_stream(STREAM.partition("=")[2], 48, 64)
  expected = next(stream.read(10 + 4 * 6)).truth
  np.testing.assert_array_equal(record.read(6), expected)


def test_folders_of_others_are_refused(tmp_path):
  (tmp_path / "file").write_text("mine")
  into = f"--out={tmp_path / 'file'}"
  binaries.assert_refused(
    binaries.run("record", "--smoke", TRUTH, into), "file"
  )
  into = f"--out={tmp_path}"
  binaries.assert_refused(
    binaries.run("record", "--smoke", TRUTH, into), "not of a recording"
  )
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_interrupted_recording_is_gone_on_with(tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  flags = ("--stream=synthetic:street?num_frames=400", *SMALL)
  process = subprocess.Popen(
    binaries.command("record", *flags, f"--out={parts}"),
    cwd=binaries.ROOT,
    stderr=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  records, deadline = parts / recorded.LOG, time.monotonic() + 100
  while not (records.exists() and records.stat().st_size > 2000):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.002)
  process.send_signal(signal.SIGINT)
  stdout, stderr = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGINT, stderr
  assert stdout.startswith("stopped: ") and "Traceback" not in stderr
  assert 0 < len(recorded.Recording(parts)) < 400
  for path in (parts, whole):
    result = binaries.run("record", *flags, f"--out={path}")
    assert result.returncode == 0, result.stderr
  assert records.read_bytes() == (whole / recorded.LOG).read_bytes()
