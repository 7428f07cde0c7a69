"""Anyone's own teacher, good and bad."""

import sys
import types

import numpy as np
import pytest
import torch
import torchvision

from ojd import labels
from ojd.errors import UserError
from ojd.teachers import base
from ojd.types import Instances, Sample

REQUEST = base.Context((), 8, 10, {})
FRAME = np.zeros((8, 10, 3), np.uint8)


def _make(monkeypatch, factory, text="my_lab.teachers:make"):
  module = types.ModuleType("my_lab.teachers")
  module.make = factory
  monkeypatch.setitem(sys.modules, "my_lab", types.ModuleType("my_lab"))
  monkeypatch.setitem(sys.modules, "my_lab.teachers", module)
  return base.make_teacher(text, REQUEST)


def _factory(answer, names=("background", "cat", "dog")):
  class Mine:
    class_names = names

    def __call__(self, frame):
      return answer(frame)

  return Mine


def _label(teacher):
  groups = labels.parse_groups("", teacher.class_names)
  return base.label(teacher, Sample(0, FRAME, None), groups)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_class_maps_of_whole_numbers(monkeypatch, dtype):
  answer = np.zeros((8, 10), dtype)
  answer[2:4, 3:5] = 1
  teacher = _make(monkeypatch, _factory(lambda frame: answer))
  made = _label(teacher)
  np.testing.assert_array_equal(made.classes, answer)
  assert made.weights[2, 3] == 5.0
  assert not teacher.is_free


def test_instances(monkeypatch):
  masks = np.zeros((1, 8, 10), bool)
  masks[0, 1:3, 1:4] = True
  answer = Instances([[1, 1, 3, 4]], [0.9], [2], masks)
  made = _label(_make(monkeypatch, _factory(lambda frame: answer)))
  assert made.classes.sum() == 2 * 6


@pytest.mark.parametrize(
  "answer",
  [
    None,
    "a cat",
    np.zeros((8, 10), np.float32),
    np.zeros((8, 9), np.uint8),
    np.zeros((8, 10, 3), np.uint8),
    np.full((8, 10), 300),
    np.full((8, 10), -1),
    Instances([[1, 1, 3, 4]], [0.9], [2], np.zeros((1, 7, 9), bool)),
    Instances([[1, 1, 3, 4]], [0.9], [2], np.zeros((2, 8, 10), bool)),
    Instances([[1, 1, 3, 4]], [0.9], [3], np.zeros((1, 8, 10), bool)),
    Instances([[1, 1, 3]], [0.9], [2], np.zeros((1, 8, 10), bool)),
    Instances([[1, 1, 3, 4]], [0.9], [1, 2], np.zeros((1, 8, 10), bool)),
  ],
)
def test_nonsense_is_refused_in_a_line(monkeypatch, answer):
  teacher = _make(monkeypatch, _factory(lambda frame: answer))
  with pytest.raises(UserError) as error:
    _label(teacher)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "names", [None, "background", ("cat", "dog"), ("background",), (1, 2)]
)
def test_class_names_must_be_names(monkeypatch, names):
  with pytest.raises(UserError, match="class_names"):
    _make(monkeypatch, _factory(lambda frame: None, names))


def test_what_cannot_be_imported_is_refused(monkeypatch):
  with pytest.raises(UserError, match="no_such_module"):
    base.make_teacher("no_such_module:make", REQUEST)
  with pytest.raises(UserError, match="no such function"):
    _make(monkeypatch, _factory(None), "my_lab.teachers:other")


def test_options_reach_the_factory(monkeypatch):
  def make(*, num: int = 1):
    return _factory(None, ("background", *map(str, range(num))))()

  text = "my_lab.teachers:make:num=3"
  assert len(_make(monkeypatch, make, text).class_names) == 4
  with pytest.raises(UserError, match="no option 'size'; it has num"):
    _make(monkeypatch, make, "my_lab.teachers:make:size=3")


def test_example_wraps_a_semantic_model(monkeypatch):
  class Flat(torch.nn.Module):
    """Stands for the network: class 15, a person, in the upper half."""

    def forward(self, x):
      assert x.shape == (1, 3, 8, 10) and x.dtype == torch.float32
      logits = torch.zeros(1, 21, 8, 10)
      logits[:, 15, :4] = 1.0
      return {"out": logits}

  zoo = torchvision.models.segmentation
  monkeypatch.setattr(zoo, "deeplabv3_resnet50", lambda weights: Flat())
  text = "experiments.semantic_teacher:make"
  teacher = base.make_teacher(text, REQUEST)
  groups = labels.parse_groups("person", teacher.class_names)
  made = base.label(teacher, Sample(0, FRAME, None), groups)
  assert made.classes[:4].all() and not made.classes[4:].any()
