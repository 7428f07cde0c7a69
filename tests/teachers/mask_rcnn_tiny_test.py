"""The small detector: its file, its training, and that both are repeatable."""

import numpy as np
import pytest
import safetensors.torch
import torch

from experiments import train_teacher
from ojd.errors import RequestError
from ojd.streams import base as streams
from ojd.teachers import base, train_tiny
from ojd.teachers import mask_rcnn_tiny as tiny
from ojd.types import Instances

RECIPE = train_tiny.Recipe(num_steps=3, batch=2, height=64, width=96)
REQUEST = base.TeacherRequest((), 64, 96, {}, device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  torch.manual_seed(3)
  path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
  model = tiny.build().eval()
  tiny.save(model, path)
  return model, path


def test_file_is_small_and_gives_the_same_network(weights):
  model, path = weights
  assert path.stat().st_size < 8_000_000
  loaded = tiny.load(path).state_dict()
  for name, value in model.state_dict().items():
    if value.is_floating_point():
      assert torch.equal(loaded[name], value.half().float()), name


def test_answers_with_instances_of_its_classes(weights):
  request = REQUEST._replace(weights=str(weights[1]))
  teacher = base.make_teacher("mask_rcnn_tiny", request)
  stream = streams.open_stream("synthetic:street", 64, 96)
  answer = teacher(next(iter(stream.read(3))))
  assert isinstance(answer, Instances)
  assert teacher.class_names == tiny.CLASS_NAMES


@pytest.mark.parametrize("damage", ["missing", "garbage", "shape", "name"])
def test_other_files_are_refused_in_a_line(weights, tmp_path, damage):
  path = tmp_path / "other.safetensors"
  state = safetensors.torch.load_file(weights[1])
  name = "roi_heads.box_predictor.cls_score.bias"
  if damage == "garbage":
    path.write_bytes(b"\x10" * 100)
  elif damage == "shape":
    safetensors.torch.save_file(state | {name: torch.zeros(91)}, path)
  elif damage == "name":
    del state[name]
    safetensors.torch.save_file(state, path)
  request = REQUEST._replace(weights=str(path))
  with pytest.raises(RequestError, match=r"other\.safetensors") as error:
    base.make_teacher("mask_rcnn_tiny", request)
  assert "\n" not in str(error.value)
  if damage in ("shape", "name"):
    assert name in str(error.value)


def _train(folder, **arguments):
  folder.mkdir(exist_ok=True)
  batch_fn = train_teacher.Worlds(RECIPE).batch
  return train_tiny.train(RECIPE, batch_fn, folder, save_every=1, **arguments)


def test_interrupted_training_ends_with_the_same_weights(tmp_path):
  losses = []
  whole = _train(tmp_path / "whole", report_fn=losses.append)
  assert [report.step for report in losses] == [0, 1, 2]
  stops = iter([False, True, True])
  _train(tmp_path / "parts", should_stop=lambda: next(stops))
  rest = []
  parts = _train(tmp_path / "parts", report_fn=rest.append)
  assert rest[0].step == 1
  for a, b in zip(
    whole.state_dict().values(), parts.state_dict().values(), strict=True
  ):
    assert torch.equal(a, b)


def test_learning_rate_rises_then_falls_to_nothing():
  recipe = train_tiny.Recipe(num_steps=1000, learning_rate=1.0)
  rates = [train_tiny.learning_rate(recipe, i) for i in range(1001)]
  assert rates[0] < 0.01 and max(rates) == pytest.approx(1.0)
  assert rates.index(max(rates)) in (199, 200)
  assert rates[600] == pytest.approx(0.5) and rates[1000] < 1e-9


def test_examples_leave_specks_out_and_mirror_both_sides():
  frame = np.zeros((20, 30, 3), np.uint8)
  frame[2:12, 3:9] = 255
  masks = np.zeros((2, 20, 30), bool)
  masks[0, 2:12, 3:9] = True
  masks[1, 0:2, 0:2] = True  # too small to be learnt
  boxes = np.array([[2, 3, 12, 9], [0, 0, 2, 2]], np.float32)
  instances = Instances(boxes, np.ones(2), np.array([1, 1]), masks)
  names = ("background", "dog")
  image, target = train_tiny.example(names, frame, instances)
  assert target["boxes"].tolist() == [[3, 2, 9, 12]]
  assert target["labels"].tolist() == [tiny.CLASS_NAMES.index("dog")]
  image, target = train_tiny.mirror(image, target)
  assert target["boxes"].tolist() == [[21, 2, 27, 12]]
  left, top, right, bottom = map(int, target["boxes"][0])
  inside = torch.zeros(20, 30, dtype=torch.bool)
  inside[top:bottom, left:right] = True
  assert torch.equal(target["masks"][0].bool(), inside)
  assert torch.equal(image[0] > 0.5, inside)


def test_batches_are_a_function_of_the_step():
  one, other = train_teacher.Worlds(RECIPE), train_teacher.Worlds(RECIPE)
  other.batch(40)  # another world before
  (a, target_a), (b, target_b) = one.batch(17), other.batch(17)
  assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
  assert torch.equal(target_a[0]["masks"], target_b[0]["masks"])
  c, _ = one.batch(18)
  assert not torch.equal(a[0], c[0])


def test_judge_gives_the_truth_full_marks():
  address = "synthetic:street?seed=3&num_frames=41"
  stream = streams.open_stream(address, 64, 96)
  teacher = lambda sample: stream.instances(sample.t)
  iou = train_teacher.judge(teacher, [address], 64, 96, every=20)
  assert iou["mean"] == 1.0 and iou["person"] == 1.0
