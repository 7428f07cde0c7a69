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
  _assert_refused(other, "--seed (0, now 5)")
  assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
  (path / "report" / "index.html").unlink()
  assert _run("--smoke", f"--workdir={path}", "--save_masks").returncode == 0
  assert (path / "report" / "index.html").exists()  # it needs only the files


def test_help_tells_of_every_flag():
  result = _run("--help")
  assert result.returncode == 0
  for flag in ("--stream", "--a_thresh", "--[no]overlay", "--[no]smoke"):
    assert f"  {flag}:" in result.stdout


def _assert_refused(result, *words):
  """Exit code 2 and one line that names what is wrong."""
  errors = [x for x in result.stderr.splitlines() if x.startswith("error: ")]
  assert result.returncode == 2, result.stderr
  assert len(errors) == 1 and "Traceback" not in result.stderr
  for word in words:
    assert word in errors[0]


def _folder(path, num_frames=3, num_masks=3, mask_size=(64, 48)):
  for name in ("frames", "masks"):
    (path / name).mkdir(parents=True)
  for i in range(num_frames):
    Image.new("RGB", (64, 48)).save(path / "frames" / f"{i}.png")
  for i in range(num_masks):
    Image.new("L", mask_size).save(path / "masks" / f"{i}.png")
  classes = {"0": "background", "255": "thing"}
  (path / "stream.json").write_text(json.dumps({"classes": classes}))
  return path


def _bad_streams(tmp_path):
  """Address -> word of the answer."""
  broken = _folder(tmp_path / "broken")
  (broken / "frames" / "1.png").write_bytes(b"no image at all")
  uneven = _folder(tmp_path / "uneven", num_masks=2)
  sizes = _folder(tmp_path / "sizes", mask_size=(32, 48))
  crowded = _folder(tmp_path / "crowded")
  classes = {str(i): f"class {i}" for i in range(300)}
  (crowded / "stream.json").write_text(json.dumps({"classes": classes}))
  return {
    f"folder:{tmp_path / 'nowhere'}": "nowhere",
    "carrier:pigeon": "synthetic:",
    "synthetic:moon": "street",
    f"folder:{broken}": "1.png",
    f"folder:{uneven}": "2 masks",
    f"folder:{sizes}": "do not match",
    f"folder:{crowded}": "255",
  }


def test_bad_streams_are_refused_before_anything_is_written(tmp_path):
  path = tmp_path / "run"
  for address, word in _bad_streams(tmp_path).items():
    result = _run(f"--workdir={path}", f"--stream={address}", TRUTH)
    _assert_refused(result, word)
    assert not path.exists()


@pytest.mark.parametrize(
  ("flag", "word"),
  [
    ("--height=0", "--height=0"),
    ("--width=7", "--width=7"),
    ("--a_thresh=1.5", "--a_thresh=1.5"),
    ("--a_thresh=high", "a_thresh"),
    ("--teacher=nobody", "ground_truth"),
    ("--classes=unicorn", "person"),
    ("--no_such_flag=1", "no_such_flag"),
    ("stray", "stray"),
  ],
)
def test_bad_flags_are_refused_before_anything_is_written(tmp_path, flag, word):
  path = tmp_path / "run"
  _assert_refused(_run(f"--workdir={path}", *SMALL[2:], flag), word)
  assert not path.exists()


def test_bad_workdirs_are_refused(tmp_path):
  (tmp_path / "file").write_text("mine")
  _assert_refused(_run(f"--workdir={tmp_path / 'file'}", *SMALL), "is a file")
  below = tmp_path / "file" / "below"
  _assert_refused(_run(f"--workdir={below}", *SMALL), "--workdir")
  _assert_refused(_run(f"--workdir={tmp_path}", *SMALL), "not of a run")
  _assert_refused(_run(*SMALL), "--workdir")
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
