"""The main binary as a person starts it: what it leaves, how it refuses."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from ojd.run import workdir
from tests import binaries
from tests.reference import small_run

SMALL = ("--height=48", "--width=64", "--teacher=ground_truth", "--nooverlay")


def _run(*flags):
  return binaries.succeed("online_distill", *flags)


def test_smoke_run_leaves_what_the_contract_says(tmp_path):
  path = tmp_path / "run"
  flags = ("--smoke", f"--workdir={path}", "--save_masks")
  first = _run(*flags)
  assert "mIoU against the truth" in first.stdout
  text = (path / "metrics.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  summary = workdir.read_summary(path)
  assert [line["t"] for line in lines] == list(range(24))
  assert summary["finished"] and summary["num_frames"] == 24
  keys = [line for line in lines if line["is_key"]]
  assert summary["num_key_frames"] == len(keys) > 0
  assert keys[0]["t"] == 0
  assert summary["num_updates"] == sum(k["num_updates"] for k in keys)
  names = {"miou_before", "miou_after", "loss", "grad_norm", "stride"}
  names |= {"ms_teacher", "ms_learn"}
  assert all(names <= key.keys() for key in keys)
  masks = sorted((path / "masks").glob("*.png"))
  assert len(masks) == 24
  assert np.asarray(Image.open(masks[0])).shape == (64, 96)
  assert (path / "overlay.mp4").stat().st_size > 1000
  assert (path / "report" / "index.html").exists()

  times = lambda: {p: p.stat().st_mtime_ns for p in path.rglob("*")}
  before = times()
  again = _run(*flags)
  assert "finished" in again.stdout
  other = binaries.run("online_distill", *flags, "--seed=5")
  binaries.assert_refused(other, "--seed (0, now 5)")
  assert times() == before
  (path / "report" / "index.html").unlink()
  _run(*flags)
  assert (path / "report" / "index.html").exists()  # it needs only the files


@pytest.mark.parametrize(
  ("number", "flag"),
  [
    (signal.SIGINT, "--async_teacher"),
    pytest.param(signal.SIGTERM, "--noasync_teacher", marks=pytest.mark.slow),
  ],
)
def test_interrupted_run_keeps_what_it_did_and_can_be_repeated(
  tmp_path, number, flag
):
  """Its teacher has a process of its own, which the signal reaches too."""
  path = tmp_path / "run"
  flags = (f"--workdir={path}", "--num_frames=150", *SMALL)
  flags += ("--init=random", "--model=jitnet:width=0.1")
  flags += ("--teacher_process", flag)
  _, stderr = binaries.interrupted(
    *("online_distill", *flags),
    begun=lambda _: binaries.num_lines(path / "metrics.jsonl") >= 3,
    number=number,
  )
  assert "once more" in stderr
  # Nothing died, and nothing was left lying about.
  for line in stderr.splitlines():
    assert line.startswith(("stopping", "frame ")), stderr
  summary, lines = workdir.read_summary(path), small_run.lines(path)
  assert not summary["finished"] and summary["interrupted"] == 1
  assert summary["num_frames"] == len(lines) < 150
  assert summary["teacher_failures"] == 0
  assert (path / "report" / "index.html").exists()

  again = _run(*flags)
  assert f"resuming at frame {len(lines)}\n" in again.stderr
  summary = workdir.read_summary(path)
  assert summary["finished"] and summary["num_frames"] == 150
  assert summary["interrupted"] == summary["resumed"] == 1
  assert small_run.lines(path)[: len(lines)] == lines
