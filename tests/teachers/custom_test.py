"""Anyone's own teacher, good and bad."""

import sys
import types

import numpy as np
import pytest
import torch
import torchvision

from ojd import labels
from ojd.teachers import base
from ojd.types import Instances, Sample
from tests.reference.refusals import refused

_TEXT = "my_lab:make"
CONTEXT = base.Context((), 8, 10, {})
FRAME = np.zeros((8, 10, 3), np.uint8)


def _make(monkeypatch, factory, text=_TEXT):
  module = types.SimpleNamespace(make=factory)
  monkeypatch.setitem(sys.modules, "my_lab", module)
  return base.make_teacher(text, CONTEXT)


def _factory(answer, names=("background", "cat", "dog")):
  class Mine:
    class_names = names

    def __call__(self, frame):
      return answer(frame)

  return Mine


def _label(teacher):
  groups = labels.parse_groups("", teacher.class_names)
  return base.label(teacher, Sample(0, FRAME, None), groups)


def _instances(num=1, size=(8, 10), box=(1, 1, 3, 4), class_ids=(2,)):
  masks = np.zeros((num, *size), bool)
  masks[0, 1:3, 1:4] = True
  return Instances([box], [0.9], class_ids, masks)


def test_class_maps_of_whole_numbers_and_instances(monkeypatch):
  expected = np.zeros((8, 10), np.uint8)
  expected[1:3, 1:4] = 1
  maps = [expected.astype(dtype) for dtype in (np.uint8, np.int64, bool)]
  for answer in (*maps, _instances(class_ids=(1,))):
    teacher = _make(monkeypatch, _factory(lambda frame, answer=answer: answer))
    made = _label(teacher)
    np.testing.assert_array_equal(made.classes, expected)
    assert made.weights[1, 1] == 5.0 and not teacher.is_free


@pytest.mark.parametrize(
  "answer",
  [
    *(None, "a cat", np.full((8, 10), 300), np.full((8, 10), -1)),
    np.zeros((8, 10), np.float32),
    *(np.zeros(size, np.uint8) for size in ((8, 9), (8, 10, 3))),
    *(_instances(size=(7, 9)), _instances(num=2), _instances(box=(1, 1, 3))),
    *(_instances(class_ids=[3]), _instances(class_ids=[1, 2])),
  ],
)
def test_nonsense_is_refused_in_a_line(monkeypatch, answer):
  teacher = _make(monkeypatch, _factory(lambda frame: answer))
  with refused():
    _label(teacher)


def _numbered(*, num: int = 1):
  return _factory(None, ("background", *map(str, range(num))))()


@pytest.mark.parametrize(
  ("factory", "text", "words"),
  [
    *(
      (_factory(None, names), _TEXT, "class_names")
      for names in (None, "background", ("cat", "dog"), ("background",), (1, 2))
    ),
    (None, "no_such_module:make", "no_such_module"),
    (None, "my_lab:other", "no such function"),
    (_numbered, f"{_TEXT}:size=3", "no option 'size'; it has num"),
  ],
)
def test_factories_that_are_refused(monkeypatch, factory, text, words):
  with refused(words):
    _make(monkeypatch, factory, text)
  teacher = _make(monkeypatch, _numbered, f"{_TEXT}:num=3")
  assert len(teacher.class_names) == 4


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
  teacher = base.make_teacher(text, CONTEXT)
  groups = labels.parse_groups("person", teacher.class_names)
  made = base.label(teacher, Sample(0, FRAME, None), groups)
  assert made.classes[:4].all() and not made.classes[4:].any()
