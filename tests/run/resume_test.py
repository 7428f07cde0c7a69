"""A run killed at any moment, and gone on with, ends as if nothing had been."""

import json
import random
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from PIL import Image

from ojd.run import trajectory, workdir
from tests import binaries

NUM_FRAMES = 120
FLAGS = (
  f"--stream=synthetic:street?num_frames={NUM_FRAMES}",
  "--teacher=ground_truth",
  "--init=random",
  "--model=jitnet:width=0.1",
  "--height=48",
  "--width=64",
  "--classes=person",
  "--save_masks",
  "--boxes",
  "--areas",
)


def _story(path):
  """All that must be equal: lines, summary, masks, last checkpoint, files."""
  lines = (path / workdir.METRICS).read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  lines = [
    {k: v for k, v in line.items() if not k.startswith("ms_")} for line in lines
  ]
  summary = json.loads((path / workdir.SUMMARY).read_text())
  counts = {
    name: summary[name]
    for name in (
      *("finished", "num_frames", "num_key_frames", "num_updates", "miou"),
      *("num_rolled_back", "num_skipped", "teacher_failures", "eval_frames"),
    )
  }
  masks = {
    file.name: np.asarray(Image.open(file))
    for file in (path / workdir.MASKS).glob("*.png")
  }
  folder = path / workdir.CHECKPOINTS
  last = max(int(x.name) for x in folder.iterdir() if x.name.isdecimal())
  (meta,) = (folder / str(last) / "meta").rglob("metadata")
  content = json.loads(meta.read_text())
  names = (workdir.TRAJECTORY + "/" + trajectory.LOG, workdir.BOXES)
  names += (workdir.BOX_LIST, workdir.AREAS)
  files = [(path / name).read_bytes() for name in names]
  return lines, counts, masks, (last, content["digest"], files)


def _assert_same(path, other):
  (lines, counts, masks, last) = _story(path)
  (lines_, counts_, masks_, last_) = _story(other)
  assert lines == lines_ and counts == counts_ and last == last_
  assert masks.keys() == masks_.keys()
  for name, mask in masks.items():
    np.testing.assert_array_equal(mask, masks_[name])


def _num_lines(path):
  try:
    return (path / workdir.METRICS).read_bytes().count(b"\n")
  except OSError:
    return 0


def _kill_after(path, flags, num_lines, rng):
  """Kills the run a moment after so many new lines; says if it was alive."""
  process = subprocess.Popen(
    [sys.executable, "-m", "experiments.online_distill", *flags],
    cwd=binaries.ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  deadline = time.monotonic() + 120
  seen = -1
  while process.poll() is None and time.monotonic() < deadline:
    now = _num_lines(path)
    if seen < 0 or now < seen:  # it cut off what it does again
      seen = now
    if now >= seen + num_lines:
      break
    time.sleep(0.001)
  time.sleep(rng.random() * 0.05)
  process.send_signal(signal.SIGKILL)
  return process.wait() == -signal.SIGKILL


def _kill_again_and_again(tmp_path, num_kills):
  rng = random.Random(0)
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  common = (*FLAGS, "--checkpoint_every=1")
  result = binaries.run("online_distill", *common, f"--workdir={whole}")
  assert result.returncode == 0, result.stderr
  parts.mkdir()
  num_killed = 0
  for _ in range(num_kills):
    num_lines = rng.randint(0, 2 * NUM_FRAMES // num_kills)
    flags = (*common, f"--workdir={parts}")
    num_killed += _kill_after(parts, flags, num_lines, rng)
  assert num_killed > num_kills // 2
  result = binaries.run("online_distill", *common, f"--workdir={parts}")
  assert result.returncode == 0, result.stderr
  _assert_same(parts, whole)
  with av.open(parts / workdir.OVERLAY) as video:
    assert sum(1 for _ in video.decode(video=0)) == NUM_FRAMES
  assert not (parts / workdir.OVERLAY_PARTS).exists()


def test_kills_leave_no_trace(tmp_path):
  _kill_again_and_again(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [20, 100])
def test_many_kills_leave_no_trace(tmp_path, num_kills):
  _kill_again_and_again(tmp_path, num_kills)
