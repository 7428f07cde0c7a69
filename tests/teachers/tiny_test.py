"""The small detector: its file, its training, and that both are repeatable."""

import numpy as np
import pytest
import safetensors.torch
import torch

from experiments import train_teacher
from ojd.pretraining import album
from ojd.streams import base as streams
from ojd.teachers import base, tiny, train_tiny
from ojd.types import Instances, Sample
from tests.reference.refusals import refused

RECIPE = train_tiny.Recipe(
  **{"num_dense_steps": 2, "num_steps": 4, "batch": 2},
  **{"num_worlds": 2, "frames_per_world": 2, "height": 64, "width": 96},
)

CONTEXT = base.Context((), 64, 96, {})


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
  text = f"mask_rcnn_tiny:device=cpu:weights={path}"
  teacher = base.make_teacher(text, CONTEXT)
  frame = np.zeros((64, 96, 3), np.uint8)
  assert isinstance(teacher(Sample(0, frame, None)), Instances)
  assert teacher.class_names == tiny.CLASS_NAMES


def test_other_files_are_refused_in_a_line(weights, tmp_path):
  path = tmp_path / "other.safetensors"
  state = safetensors.torch.load_file(weights[1])
  name = "roi_heads.box_predictor.cls_score.bias"
  bias = state.pop(name)
  wrong = safetensors.torch.save(state | {name: torch.cat([bias, bias])})
  for content, words in (
    *((None, ""), (b"\x10" * 100, "")),
    *((wrong, name), (safetensors.torch.save(state), name)),
  ):
    if content:
      path.write_bytes(content)
    with refused("other.safetensors", words):
      base.make_teacher(f"mask_rcnn_tiny:weights={path}", CONTEXT)


@pytest.fixture(scope="module")
def pages():
  return album.draw(album.Plan(0, 2, 2, 64, 96))


def _train(folder, pages, recipe=RECIPE, **arguments):
  folder.mkdir(exist_ok=True)
  batch_fn = train_teacher.Batches(recipe, pages)
  return train_tiny.train(recipe, batch_fn, folder, save_every=1, **arguments)


@pytest.mark.parametrize("first", [1, 3])
def test_interrupted_training_ends_with_the_same_weights(
  tmp_path, pages, first
):
  """Whether it was interrupted before the detector began to learn or after."""
  losses = []
  whole = _train(tmp_path / "whole", pages, report_fn=losses.append)
  assert [report.step for report in losses] == [0, 1, 2, 3]
  stops = iter([False] * first + [True])
  _train(tmp_path / "parts", pages, should_stop=lambda: next(stops))
  rest = []
  parts = _train(tmp_path / "parts", pages, report_fn=rest.append)
  assert rest[0].step == first
  for name, value in whole.state_dict().items():
    assert torch.equal(parts.state_dict()[name], value)


def test_other_states_in_the_folder_are_refused(tmp_path, pages):
  _train(tmp_path, pages)
  with refused("batch=2, not 1"):
    _train(tmp_path, pages, RECIPE._replace(batch=1))
  (tmp_path / "training.pt").write_bytes(b"PK\x03\x04nothing")
  with refused("cannot be read"):
    _train(tmp_path, pages)


def test_dense_steps_leave_the_heads_alone(tmp_path, pages):
  recipe = RECIPE._replace(num_dense_steps=2, num_steps=2)
  torch.manual_seed(recipe.seed)
  before = tiny.build().state_dict()
  after = _train(tmp_path, pages, recipe).state_dict()
  changed = {n.split(".")[0] for n in before if (before[n] != after[n]).any()}
  assert changed == {"backbone"}


def test_learning_rate_rises_twice_then_falls_to_nothing():
  recipe = train_tiny.Recipe(
    num_dense_steps=1000, num_steps=3000, learning_rate=1.0
  )
  rates = [train_tiny.learning_rate(recipe, i) for i in range(3001)]
  assert rates[0] < 0.01 and rates[200:1000] == [1.0] * 800
  assert rates[1000] < 0.01 and rates[1200] == pytest.approx(1.0)
  # Half of a cosine that ends at 3840: at 2520, halfway, a half, of which the
  # last thousand steps leave 480 thousandths.
  assert rates[1860] == pytest.approx(0.5 + 0.5 * 2**-0.5)
  assert rates[2520] == pytest.approx(0.5 * 0.48) and rates[3000] == 0.0


def test_examples_leave_specks_out_and_mirror_both_sides():
  frame = np.zeros((20, 30, 3), np.uint8)
  frame[2:12, 3:9] = 255
  things = np.zeros((20, 30), np.uint8)
  things[2:12, 3:9] = 2
  things[0:2, 0:2] = 5  # too small to be learnt
  dog, person = map(tiny.CLASS_NAMES.index, ("dog", "person"))
  class_ids = np.zeros(256, np.uint8)
  class_ids[[2, 5]] = dog, person
  image, target = train_tiny.example(frame, things, class_ids)
  assert target["boxes"].tolist() == [[3, 2, 9, 12]]
  assert target["labels"].tolist() == [dog]
  assert target["classes"][0, 0] == person and target["classes"][5, 5] == dog
  image, target = train_tiny.mirror(image, target)
  assert target["boxes"].tolist() == [[21, 2, 27, 12]]
  inside = torch.zeros(20, 30, dtype=torch.bool)
  inside[2:12, 21:27] = True
  assert torch.equal(target["masks"][0].bool(), inside)
  assert torch.equal(target["classes"] == dog, inside)
  assert torch.equal(image[0] > 0.5, inside)


def test_judge_gives_the_truth_full_marks():
  address = "synthetic:street?seed=3&num_frames=41"
  stream = streams.open_stream(address, 64, 96)
  truth = lambda sample: stream.instances(sample.t)
  iou = train_teacher.evaluate(truth, RECIPE, [address], 20)
  assert iou[album.MEAN] == iou["person"] == 1.0
  unsure = lambda sample: truth(sample)._replace(
    scores=0 * truth(sample).scores
  )
  iou = train_teacher.evaluate(unsure, RECIPE, [address], 20)
  assert iou[album.MEAN] == 0.0 < iou[album.WITH_BACKGROUND] < 0.5
