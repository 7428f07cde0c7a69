"""The recorder as a person starts it, and the run that replays it."""

import numpy as np
import pytest

from ojd.streams import base
from ojd.teachers import recorded
from tests import binaries
from tests.reference import small_run

TRUTH = "--teacher=ground_truth"
SMALL = ("--height=48", "--width=64", TRUTH)
STREAM = "--stream=synthetic:street?num_frames=40"


def _record(path, *flags, run=binaries.succeed):
  return run("record", *flags, f"--out={path}")


@pytest.mark.slow  # two whole runs
def test_replayed_run_equals_the_first(tmp_path):
  made = _record(tmp_path / "rec", STREAM, *SMALL)
  assert "40 frames recorded" in made.stdout
  for name in ("ground_truth", f"recorded:path={tmp_path / 'rec'}"):
    path = tmp_path / name.partition(":")[0]
    flags = (f"--teacher={name}", f"--workdir={path}", "--nooverlay")
    run = binaries.succeed("online_distill", STREAM, *SMALL, *flags)
  first, second = (
    small_run.lines(tmp_path / name) for name in ("ground_truth", "recorded")
  )
  assert len(first) == 40
  assert first == second
  # Another stream is refused before anything is written.
  other = "--stream=synthetic:park?num_frames=40"
  flags = (f"--teacher={name}", f"--workdir={tmp_path / 'x'}")
  run = binaries.run("online_distill", other, *SMALL, *flags)
  binaries.assert_refused(run, "another stream", "park")
  assert not (tmp_path / "x").exists()


def test_smoke_run_leaves_a_recording(tmp_path):
  flags = (tmp_path / "r", "--smoke", TRUTH)
  result = _record(*flags)
  assert "24 frames recorded" in result.stdout
  record = recorded.Recording(tmp_path / "r")
  assert record.frames == list(range(24))
  assert record.description.teacher == "ground_truth"
  # On a recording that is whole the same command has nothing to do.
  again = _record(*flags)
  assert "24 frames recorded" in again.stdout
  assert "went on from frame 24" in again.stdout
  other = _record(*flags, "--ask_every=2", run=binaries.run)
  binaries.assert_refused(other, "every (1, now 2)")


def test_window_of_a_stream_is_recorded(tmp_path):
  window = ("--start_frame=10", "--every=4", "--ask_every=2")
  _record(tmp_path / "r", STREAM, *SMALL, *window)
  record = recorded.Recording(tmp_path / "r")
  assert record.description.num_frames == 8  # 10, 14, ..., 38
  assert record.frames == [0, 2, 4, 6]
  stream = base.open_stream(STREAM.partition("=")[2], 48, 64)
  expected = next(stream.read(10 + 4 * 6)).truth
  np.testing.assert_array_equal(record.read(6), expected)


def test_folders_of_others_are_refused(tmp_path):
  file = tmp_path / "file"
  file.write_text("mine")
  for path, words in ((file, "file"), (tmp_path, "not of a recording")):
    result = _record(path, "--smoke", TRUTH, run=binaries.run)
    binaries.assert_refused(result, words)
  assert list(tmp_path.iterdir()) == [file]


def test_interrupted_recording_is_gone_on_with(tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  flags = ("--stream=synthetic:street?num_frames=400", *SMALL)
  records = parts / recorded.LOG
  stdout, _ = binaries.interrupted(
    *("record", *flags, f"--out={parts}"),
    begun=lambda _: records.exists() and records.stat().st_size > 2000,
  )
  assert stdout.startswith("stopped: ")
  assert 0 < len(recorded.Recording(parts)) < 400
  for path in (parts, whole):
    _record(path, *flags)
  assert records.read_bytes() == (whole / recorded.LOG).read_bytes()
