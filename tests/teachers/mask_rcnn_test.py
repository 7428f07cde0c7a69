"""The full-size detector: real building and loading code, random weights."""

import functools
import urllib.error
from unittest import mock

import numpy as np
import pytest
import torch
from torchvision import ops
from torchvision.models import detection

from ojd import labels
from ojd.teachers import base, detector, tiny
from ojd.types import Sample
from tests.reference.refusals import refused

CONTEXT = base.Context((), 64, 96, {})


def _make(name, weights="random"):
  return base.make_teacher(f"{name}:weights={weights}:device=cpu", CONTEXT)


def _frame(height=64, width=96):
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
  frame.flags.writeable = False  # as decoders may give it
  return frame


def test_answers_in_the_eighty_classes_of_coco():
  teacher = _make("mask_rcnn:v1")
  names = teacher.class_names
  assert names[0] == "background" and len(names) == 91
  assert (names[1], names[3], names[18]) == ("person", "car", "dog")
  groups = labels.parse_groups("", names)
  assert len(groups.names) == 81  # nameless numbers are no classes
  made = base.label(teacher, Sample(0, _frame(), None), groups)
  assert made.classes.shape == (64, 96)


def test_weights_of_a_file_are_loaded(tmp_path):
  torch.manual_seed(7)
  model = detection.maskrcnn_resnet50_fpn(
    weights=None, weights_backbone=None, num_classes=91
  )
  path = tmp_path / "weights.pth"
  torch.save(model.state_dict(), path)
  teacher = _make("mask_rcnn:v1", path)
  loaded = teacher._model.state_dict()
  for name, value in model.state_dict().items():
    assert torch.equal(loaded[name], value), name


class _Evil:
  def __reduce__(self):
    return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize(
  "content",
  [
    *(None, b"these are no weights"),
    *({"fc.weight": torch.zeros(3, 3)}, {"a": _Evil()}),
  ],
)
def test_bad_weights_are_refused_in_a_line(tmp_path, content):
  path = tmp_path / "weights.pth"
  if isinstance(content, bytes):
    path.write_bytes(content)
  elif content:
    torch.save(content, path)
  for _ in range(2):
    with refused("weights.pth"):
      _make("mask_rcnn:v1", path)
    if content:
      path.write_bytes(path.read_bytes()[:-100])  # and cut off


def test_failed_download_says_which_file_and_how(monkeypatch):
  failing = mock.Mock(side_effect=urllib.error.URLError("no route"))
  monkeypatch.setattr(torch.hub, "download_url_to_file", failing)
  monkeypatch.setenv("TORCH_HOME", "/nonexistent-for-this-test")
  monkeypatch.setattr(torch.hub.os, "makedirs", lambda *a, **k: None)
  with refused("maskrcnn_resnet50_fpn_v2_coco", "https://", ":weights="):
    base.make_teacher("mask_rcnn", CONTEXT)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("mask_rcnn:v3", "mask_rcnn:v1, mask_rcnn:v2"),
    ("mask_rcnn:size=3", "it has version, weights, device, half"),
    # The file is not even opened.
    ("mask_rcnn:half=true:weights=nowhere:device=cpu", "half=true needs a GPU"),
    ("mask_rcnn_tiny:half=true:device=cpu", "half=true needs a GPU"),
    ("mask_rcnn:device=tpu", "device=tpu: unknown"),
    *[("mask_rcnn:device=cuda", "no GPU")] * (not torch.cuda.is_available()),
  ],
)
def test_options_are_refused_in_a_line(text, words):
  with refused(words):
    base.make_teacher(text, CONTEXT)


# No threshold: random weights are sure of nothing.
_build_v2 = functools.partial(
  detection.maskrcnn_resnet50_fpn_v2,
  **{"weights": None, "weights_backbone": None},
  **{"min_size": 96, "box_score_thresh": 0.0},
)
_build_tiny = functools.partial(tiny.build, score_thresh=0.0)


@pytest.mark.parametrize(
  ("build", "dtype", "share"),
  [
    (_build_tiny, torch.float16, 0.7),
    (_build_tiny, torch.bfloat16, 0.4),
    (_build_v2, torch.bfloat16, 0.4),
    # A minute: a CPU has no arithmetic of that kind.
    pytest.param(_build_v2, torch.float16, 0.7, marks=pytest.mark.slow),
  ],
)
def test_half_precision_answers_in_floats_nearby(build, dtype, share):
  assert detector.pick_dtype(True, torch.device("cuda")) is torch.float16
  frame = np.kron(_frame(6, 9), np.ones((16, 16, 1), np.uint8))
  torch.manual_seed(0)
  state = build().state_dict()
  answers = []
  for precision in (None, dtype):
    model = build()
    model.load_state_dict(state)
    made = detector.Detector(model, (), torch.device("cpu"), precision)
    answers.append(made(Sample(0, frame, None)))
  whole, half = answers
  assert half.boxes.dtype == half.scores.dtype == np.float32
  assert half.masks.shape == (len(half.scores), 96, 144)
  assert not np.array_equal(half.scores, whole.scores)  # it did make a change
  np.testing.assert_allclose(half.scores[:20], whole.scores[:20], atol=0.1)
  # In another order, and now and then another of two that overlap.
  boxes = (torch.from_numpy(x.boxes[:20].copy()) for x in (half, whole))
  best = ops.box_iou(*boxes).amax(1)
  assert len(best) == 20 and (best > 0.9).float().mean() > share
