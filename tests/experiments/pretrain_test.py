"""`experiments.pretrain` on COCO and on one stream."""

import json

import pytest

from ojd.models import pretrained
from tests import binaries
from tests.reference import coco_folder


@pytest.mark.slow
def test_binary_trains_on_coco_and_writes_a_student(tmp_path):
  folder = coco_folder.write(tmp_path)
  out = folder / "out"
  result = binaries.run(
    "pretrain", f"--data=coco:{folder}", f"--workdir={out}", "--smoke"
  )
  assert result.returncode == 0, result.stderr
  student = pretrained.load(out / "student.safetensors")
  assert student.class_names == ("background", "cat", "dog")
  assert student.about["optimizer"] == "slow_adam"
  assert student.about["decay_steps"] == 50  # ten epochs of five, one a step


@pytest.mark.slow
def test_binary_learns_one_stream_by_heart(tmp_path):
  flags = (
    *("--stream=synthetic:sports?num_frames=7", "--teacher=ground_truth"),
    *("--height=32", "--width=48", "--classes=person", "--every=3"),
    *(f"--workdir={tmp_path}", "--smoke"),
  )
  result = binaries.run("pretrain", *flags)
  assert result.returncode == 0, result.stderr
  student = pretrained.load(tmp_path / "student.safetensors")
  assert student.class_names == ("background", "person")
  assert (student.about["optimizer"], student.about["every"]) == ("sgd", 3)
  about = json.loads((tmp_path / "album" / "about.json").read_text())
  assert about["count"] == 3  # frames 0, 3 and 6
  result = binaries.run("pretrain", *flags, "--init=random")
  assert result.returncode == 2 and result.stderr.count("\n") == 1
  assert "frames of another stream or teacher" in result.stderr
