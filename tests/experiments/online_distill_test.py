"""The main binary as a person starts it: what it leaves, how it refuses."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from tests import binaries

TRUTH = "--teacher=ground_truth"
SMALL = ("--height=48", "--width=64", TRUTH, "--nooverlay")


def _run(*flags):
  return binaries.run("online_distill", *flags)


def _metrics(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def _without_times(lines):
  return [
    {k: v for k, v in line.items() if not k.startswith("ms_")} for line in lines
  ]


def test_smoke_run_leaves_what_the_contract_says(tmp_path):
  path = tmp_path / "run"
  first = _run("--smoke", f"--workdir={path}", "--save_masks")
  assert first.returncode == 0, first.stderr
  assert "mIoU against the truth" in first.stdout
  lines, summary = (
    _metrics(path),
    json.loads((path / "summary.json").read_text()),
  )
  assert [line["t"] for line in lines] == list(range(24))
  assert summary["finished"] and summary["num_frames"] == 24
  keys = [line for line in lines if line["is_key"]]
  assert summary["num_key_frames"] == len(keys) > 0
  assert keys[0]["t"] == 0
  assert summary["num_updates"] == sum(k["num_updates"] for k in keys)
  for key in keys:
    assert {"miou_before", "miou_after", "loss", "grad_norm"} <= key.keys()
    assert {"ms_teacher", "ms_learn", "stride"} <= key.keys()
  masks = sorted((path / "masks").glob("*.png"))
  assert len(masks) == 24
  assert np.asarray(Image.open(masks[0])).shape == (64, 96)
  assert (path / "overlay.mp4").stat().st_size > 1000
  assert (path / "report" / "index.html").exists()

  before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
  again = _run("--smoke", f"--workdir={path}", "--save_masks")
  assert again.returncode == 0 and "finished" in again.stdout
  assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
  other = _run("--smoke", f"--workdir={path}", "--save_masks", "--seed=5")
  binaries.assert_refused(other, "--seed (0, now 5)")
  assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
  (path / "report" / "index.html").unlink()
  assert _run("--smoke", f"--workdir={path}", "--save_masks").returncode == 0
  assert (path / "report" / "index.html").exists()  # it needs only the files


def test_help_tells_of_every_flag():
  result = _run("--help")
  assert result.returncode == 0
  for flag in ("--stream", "--a_thresh", "--[no]overlay", "--[no]smoke"):
    assert f"  {flag}:" in result.stdout


def test_bad_workdirs_are_refused(tmp_path):
  (tmp_path / "file").write_text("mine")
  binaries.assert_refused(
    _run(f"--workdir={tmp_path / 'file'}", *SMALL), "is a file"
  )
  below = tmp_path / "file" / "below"
  binaries.assert_refused(_run(f"--workdir={below}", *SMALL), "--workdir")
  binaries.assert_refused(_run(f"--workdir={tmp_path}", *SMALL), "not of a run")
  binaries.assert_refused(_run(*SMALL), "--workdir")
  assert os.listdir(tmp_path) == ["file"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_keeps_what_it_did_and_can_be_repeated(
  tmp_path, number
):
  path = tmp_path / "run"
  flags = (f"--workdir={path}", "--num_frames=60", *SMALL)
  process = subprocess.Popen(
    binaries.command("online_distill", *flags),
    cwd=binaries.ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  metrics, deadline = path / "metrics.jsonl", time.monotonic() + 200
  while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.005)
  process.send_signal(number)
  _, stderr = process.communicate(timeout=60)
  assert process.returncode == 128 + number, stderr
  assert "Traceback" not in stderr
  summary = json.loads((path / "summary.json").read_text())
  lines = _metrics(path)
  assert not summary["finished"] and summary["interrupted"] == 1
  assert summary["num_frames"] == len(lines) < 60
  assert (path / "report" / "index.html").exists()

  again = _run(*flags)
  assert again.returncode == 0, again.stderr
  assert f"going on with frame {len(lines)}\n" in again.stderr
  summary = json.loads((path / "summary.json").read_text())
  assert summary["finished"] and summary["num_frames"] == 60
  assert summary["interrupted"] == summary["resumed"] == 1
  assert "once more" in stderr
  assert _without_times(_metrics(path))[: len(lines)] == _without_times(lines)
