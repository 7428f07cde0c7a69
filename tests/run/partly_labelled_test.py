"""A stream that has labels of some frames: the others are not judged."""

import json

import numpy as np
from PIL import Image

from tests.reference import small_run

LABELLED = (2, 5)


def _cityscapes(root):
  """Eight frames of noise in two halves, of which two are labelled."""
  frames = root / "leftImg8bit_sequence/val/ulm"
  labels = root / "gtFine/val/ulm"
  frames.mkdir(parents=True)
  labels.mkdir(parents=True)
  numbers = np.full((48, 64), 26, np.uint8)  # a car
  numbers[:, :20] = 7  # a road
  for t in range(8):
    frame = np.random.default_rng(t).integers(0, 60, (48, 64, 3), np.uint8)
    frame[:, :20] += 120
    name = f"ulm_000000_{t:06d}"
    Image.fromarray(frame).save(frames / f"{name}_leftImg8bit.png")
    if t in LABELLED:
      path = labels / f"{name}_gtFine_labelIds.png"
      Image.fromarray(numbers).save(path)


def test_frames_without_labels_are_nobodys_question(tmp_path, small_students):
  _cityscapes(tmp_path / "data")
  path = tmp_path / "run"
  summary = small_run.run(
    path,
    stream=f"cityscapes:{tmp_path / 'data'}",
    classes="road;car",
    delta_min=2,
    delta_max=2,
  ).summary
  assert summary["finished"] and summary["num_key_frames"] == 4
  assert summary["eval_frames"] == 2
  lines = (path / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  judged = [row["t"] for row in rows if "eval_miou" in row]
  assert judged == list(LABELLED)
  # Nothing is learnt where nothing is labelled.
  learnt = {row["t"]: row["num_updates"] for row in rows if row["is_key"]}
  assert learnt[2] > 0 == learnt[4]
