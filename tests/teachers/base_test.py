"""The stream's own labels as the teacher, and the border every teacher has."""

import sys
import types

import numpy as np
import pytest

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.teachers import base
from ojd.types import IGNORE, Instances, Sample

NAMES = ("background", "person", "car")
H, W = 12, 16


def _sample():
  truth = np.zeros((H, W), np.uint8)
  truth[2:6, 2:6], truth[8:10, 8:12], truth[11, 0] = 1, 2, IGNORE
  return Sample(0, np.zeros((H, W, 3), np.uint8), truth)


def _request(truth_names=NAMES):
  return base.Context(truth_names, H, W, {})


def _groups(text=""):
  return labels_lib.parse_groups(text, NAMES)


def test_answers_with_the_truth_for_free():
  teacher = base.make_teacher("ground_truth", _request())
  sample = _sample()
  np.testing.assert_array_equal(teacher(sample), sample.truth)
  assert teacher.class_names == NAMES
  assert teacher.is_free


def test_labels_are_the_truth_with_weights():
  teacher, sample = base.make_teacher("ground_truth", _request()), _sample()
  labels = base.label(teacher, sample, _groups())
  np.testing.assert_array_equal(labels.classes, sample.truth)
  assert labels.classes.dtype == np.uint8
  expected = np.ones((H, W), np.float32)
  expected[1:7, 1:7] = 5  # 15% of 4 is 0.6
  expected[7:11, 7:13] = 5
  expected[11, 0] = 0
  np.testing.assert_array_equal(labels.weights, expected)
  assert labels.weights.dtype == np.float32


def test_labels_follow_the_groups():
  teacher, sample = base.make_teacher("ground_truth", _request()), _sample()
  labels = base.label(teacher, sample, _groups("auto=car"))
  expected = np.zeros((H, W), np.uint8)
  expected[8:10, 8:12], expected[11, 0] = 1, IGNORE
  np.testing.assert_array_equal(labels.classes, expected)
  assert labels.weights[3, 3] == 1  # the person is nobody here


def test_stream_without_labels_is_refused():
  with pytest.raises(UserError, match="--teacher=ground_truth.*no labels"):
    base.make_teacher("ground_truth", _request(()))


def test_argument_is_refused():
  with pytest.raises(UserError, match="ground_truth:x: .*no preset"):
    base.make_teacher("ground_truth:x", _request())
  with pytest.raises(UserError, match="no option 'half'"):
    base.make_teacher("ground_truth:half=true", _request())


@pytest.mark.parametrize("text", ["", ":", "oracle", "oracle:"])
def test_unknown_teacher_is_named_whole(text):
  with pytest.raises(UserError, match=f"--teacher={text}: unknown"):
    base.make_teacher(text, _request())


def test_context_and_options_reach_the_teacher(monkeypatch):
  def make_teacher(context, *, path: str = "", half: bool = False):
    return context, path, half

  module = types.ModuleType("fake_teacher")
  module.make_teacher = make_teacher
  monkeypatch.setitem(sys.modules, "fake_teacher", module)
  monkeypatch.setitem(base.TEACHERS, "fake", base.Row("fake_teacher"))
  made = base.make_teacher("fake:path=a:b?c:half=true", _request())
  assert made == (_request(), "a:b?c", True)


def test_device_decides_no_answer():
  text = "mask_rcnn:v1:weights=a:device=cuda:1:half=true"
  assert base.without_device(text) == "mask_rcnn:v1:weights=a:half=true"
  for other in ("mask_rcnn", "recorded:path=a:b", "my.lab:make:device=cpu"):
    assert base.without_device(other) == other


def test_unknown_teacher_is_told_the_known():
  with pytest.raises(UserError, match="--teacher=oracle") as error:
    base.make_teacher("oracle", _request())
  for name in base.TEACHERS:
    assert name in str(error.value)


class _Fake:
  """Answers with whatever it was given."""

  class_names = NAMES
  is_free = False

  def __init__(self, answer):
    self._answer = answer

  def __call__(self, sample):
    return self._answer


@pytest.mark.parametrize(
  "answer",
  [
    np.zeros((H, W + 1), np.uint8),
    np.zeros((W, H), np.uint8),
    np.zeros((H, W, 1), np.uint8),
    np.zeros((1, H, W), np.uint8),
    np.zeros((H, W), np.int32),
    np.zeros((H, W), np.float32),
    np.zeros((H, W), bool),
  ],
)
def test_answer_of_the_wrong_shape_or_kind_raises(answer):
  with pytest.raises(ValueError, match="answer must be"):
    base.label(_Fake(answer), _sample(), _groups())


def test_instances_become_labels():
  answer = Instances(
    np.float32([[2, 2, 6, 6]]),
    np.float32([0.9]),
    np.int32([2]),
    np.ones((1, 28, 28), np.float32),
  )
  labels = base.label(_Fake(answer), _sample(), _groups("car"))
  expected = np.zeros((H, W), np.uint8)
  expected[2:6, 2:6] = 1
  np.testing.assert_array_equal(labels.classes, expected)
