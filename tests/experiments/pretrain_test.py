"""`experiments.pretrain` on COCO and on one stream."""

import json

import pytest

from ojd.models import pretrained
from tests import binaries
from tests.reference import coco_folder


@pytest.mark.slow
def test_binary_trains_on_coco_and_writes_a_student(tmp_path):
  data, out = f"--data=coco:{coco_folder.write(tmp_path)}", tmp_path / "out"
  binaries.succeed("pretrain", data, f"--workdir={out}", "--smoke")
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
  result = binaries.succeed("pretrain", *flags)
  student = pretrained.load(tmp_path / "student.safetensors")
  assert student.class_names == ("background", "person")
  assert (student.about["optimizer"], student.about["every"]) == ("sgd", 3)
  about = json.loads((tmp_path / "album" / "about.json").read_text())
  assert about["count"] == 3  # frames 0, 3 and 6
  result = binaries.run("pretrain", *flags, "--init=random")
  binaries.assert_refused(result, "frames of another stream or teacher")
