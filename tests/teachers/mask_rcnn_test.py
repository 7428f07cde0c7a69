"""The full-size detector: real building and loading code, random weights."""

import urllib.error

import numpy as np
import pytest
import torch
from torchvision import ops
from torchvision.models import detection

from ojd import labels
from ojd.errors import UserError
from ojd.teachers import base, detector, tiny
from ojd.types import Sample

CONTEXT = base.Context((), 64, 96, {})


def _make(name, weights="random"):
  return base.make_teacher(f"{name}:weights={weights}:device=cpu", CONTEXT)


def _sample(height=64, width=96):
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
  frame.flags.writeable = False  # as decoders may give it
  return Sample(0, frame, None)


@pytest.fixture(scope="module")
def random_teacher():
  torch.manual_seed(0)
  return _make("mask_rcnn:v1")


def test_knows_the_eighty_classes_of_coco(random_teacher):
  names = random_teacher.class_names
  assert names[0] == "background" and len(names) == 91
  assert (names[1], names[3], names[18]) == ("person", "car", "dog")
  groups = labels.parse_groups("", names)
  assert len(groups.names) == 81  # nameless numbers are no classes
  grouped = labels.parse_groups("person;auto=car,bus,truck", names)
  assert list(grouped.lookup[[1, 3, 6, 8]]) == [1, 2, 2, 2]


def test_answers_in_this_projects_terms(random_teacher):
  answer = random_teacher(_sample())
  groups = labels.parse_groups("person", random_teacher.class_names)
  made = base.label(random_teacher, _sample(), groups)
  assert made.classes.shape == (64, 96)
  assert answer.boxes.shape[1] == 4
  assert answer.masks.shape[1:] == (64, 96)


def test_output_of_torchvision_is_turned_round():
  output = {
    "boxes": torch.tensor([[10.0, 20.0, 30.0, 60.0]]),
    "scores": torch.tensor([0.9]),
    "labels": torch.tensor([3]),
    "masks": torch.full((1, 1, 64, 96), 0.5),
  }
  output["masks"][..., 30:] = 0.49
  answer = detector.to_instances(output)
  np.testing.assert_array_equal(answer.boxes, [[20, 10, 60, 30]])
  assert answer.class_ids.dtype == np.int32
  assert answer.masks[..., :30].all() and not answer.masks[..., 30:].any()


def test_weights_of_a_file_are_loaded(tmp_path, random_teacher):
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
  "content", ["garbage", "truncated", "another", "evil", "missing"]
)
def test_bad_weights_are_refused_in_a_line(tmp_path, content):
  path = tmp_path / "weights.pth"
  if content == "garbage":
    path.write_bytes(b"these are no weights")
  elif content == "truncated":
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
  elif content == "another":
    torch.save({"fc.weight": torch.zeros(3, 3)}, path)
  elif content == "evil":
    torch.save({"a": _Evil()}, path)
  with pytest.raises(UserError, match="weights.pth") as error:
    _make("mask_rcnn:v1", path)
  assert "\n" not in str(error.value)


def test_failed_download_says_which_file_and_how(monkeypatch):
  def fail(*args, **kwargs):
    raise urllib.error.URLError("no route")

  monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
  monkeypatch.setenv("TORCH_HOME", "/nonexistent-for-this-test")
  monkeypatch.setattr(torch.hub.os, "makedirs", lambda *a, **k: None)
  with pytest.raises(UserError) as error:
    base.make_teacher("mask_rcnn", CONTEXT)
  message = str(error.value)
  assert "maskrcnn_resnet50_fpn_v2_coco" in message
  assert "https://" in message and ":weights=" in message


def test_unknown_versions_and_devices_are_refused():
  with pytest.raises(UserError, match="mask_rcnn:v1, mask_rcnn:v2"):
    _make("mask_rcnn:v3")
  with pytest.raises(UserError, match="it has version, weights, device, half"):
    base.make_teacher("mask_rcnn:size=3", CONTEXT)
  with pytest.raises(UserError, match="device=tpu: unknown"):
    detector.pick_device("tpu")
  if not torch.cuda.is_available():
    with pytest.raises(UserError, match="no GPU"):
      detector.pick_device("cuda")


@pytest.mark.parametrize("name", ["mask_rcnn", "mask_rcnn_tiny"])
def test_half_precision_without_a_gpu_is_refused_in_a_line(name):
  with pytest.raises(UserError, match="half=true needs a GPU") as error:
    _make(f"{name}:half=true", "nowhere")  # the file is not even opened
  assert "\n" not in str(error.value)
  assert detector.pick_dtype(False, torch.device("cpu")) is None
  assert detector.pick_dtype(True, torch.device("cuda")) is torch.float16


def _build_v2():
  # No threshold: random weights are sure of nothing.
  return detection.maskrcnn_resnet50_fpn_v2(
    weights=None, weights_backbone=None, min_size=96, box_score_thresh=0.0
  )


def _build_tiny():
  return tiny.build(score_thresh=0.0)


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
  frame = np.kron(_sample(6, 9).frame, np.ones((16, 16, 1), np.uint8))
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
