"""The stream's own labels as the teacher, and the border every teacher has."""

import sys
import types
from unittest import mock

import numpy as np
import pytest

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.teachers import base
from ojd.types import IGNORE, Sample
from tests.reference.refusals import refused

NAMES = ("background", "person", "car")
H, W = 12, 16
CONTEXT = base.Context(NAMES, H, W, {})
TRUTH = np.zeros((H, W), np.uint8)
TRUTH[2:6, 2:6], TRUTH[8:10, 8:12], TRUTH[11, 0] = 1, 2, IGNORE
SAMPLE = Sample(0, np.zeros((H, W, 3), np.uint8), TRUTH)


def _label(teacher, text=""):
  return base.label(teacher, SAMPLE, labels_lib.parse_groups(text, NAMES))


def test_the_truth_is_free_and_has_weights():
  teacher = base.make_teacher("ground_truth", CONTEXT)
  np.testing.assert_array_equal(teacher(SAMPLE), TRUTH)
  assert teacher.class_names == NAMES and teacher.is_free
  labels = _label(teacher)
  np.testing.assert_array_equal(labels.classes, TRUTH)
  assert (labels.classes.dtype, labels.weights.dtype) == (np.uint8, np.float32)
  expected = np.ones((H, W), np.float32)
  expected[1:7, 1:7] = 5  # 15% of 4 is 0.6
  expected[7:11, 7:13] = 5
  expected[11, 0] = 0
  np.testing.assert_array_equal(labels.weights, expected)
  # The person is nobody here.
  labels = _label(teacher, "auto=car")
  expected = np.where(TRUTH == IGNORE, IGNORE, TRUTH == 2)
  np.testing.assert_array_equal(labels.classes, expected)
  assert labels.weights[3, 3] == 1


_UNKNOWN = "unknown; known are ground_truth, recorded, mask_rcnn"


@pytest.mark.parametrize(
  ("text", "truth_names", "words"),
  [
    ("ground_truth", (), "no labels"),
    ("ground_truth:x", NAMES, "no preset"),
    ("ground_truth:half=true", NAMES, "no option 'half'"),
    *((text, NAMES, _UNKNOWN) for text in ("", ":", "oracle", "oracle:")),
  ],
)
def test_refused_teachers_are_named_whole(text, truth_names, words):
  with pytest.raises(UserError, match=f"--teacher={text}.*{words}"):
    base.make_teacher(text, CONTEXT._replace(truth_names=truth_names))


def test_context_and_options_reach_the_teacher(monkeypatch):
  def make_teacher(context, *, path: str = "", half: bool = False):
    return context, path, half

  module = types.SimpleNamespace(make_teacher=make_teacher)
  monkeypatch.setitem(sys.modules, "fake_teacher", module)
  monkeypatch.setitem(base.TEACHERS, "fake", base.Row("fake_teacher"))
  made = base.make_teacher("fake:path=a:b?c:half=true", CONTEXT)
  assert made == (CONTEXT, "a:b?c", True)


def test_device_decides_no_answer():
  text = "mask_rcnn:v1:weights=a:device=cuda:1:half=true"
  assert base.without_device(text) == "mask_rcnn:v1:weights=a:half=true"
  for other in ("mask_rcnn", "recorded:path=a:b", "my.lab:make:device=cpu"):
    assert base.without_device(other) == other


@pytest.mark.parametrize(
  ("shape", "dtype"),
  [
    *((shape, np.uint8) for shape in ((W, H), (H, W, 1), (1, H, W))),
    *(((H, W), dtype) for dtype in (np.int32, np.float32, bool)),
  ],
)
def test_answer_of_the_wrong_shape_or_kind_raises(shape, dtype):
  answer = np.zeros(shape, dtype)
  spec = {"class_names": NAMES}
  teacher = mock.Mock(spec=list(spec), return_value=answer, **spec)
  with refused("answer must be"):
    _label(teacher)
