"""Mean IoU against pixel counting, hand-made numbers and corner cases."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ojd import metrics
from ojd.types import IGNORE
from tests.reference import metrics_numpy

SHAPE = (4, 5)  # one shape, so that one compilation serves all examples


def _frame_miou(labels, classes, num_classes, counts=None, jit=True):
  counts = labels != IGNORE if counts is None else counts
  function = functools.partial(metrics.frame_miou, num_classes=num_classes)
  function = jax.jit(function) if jit else function
  return function(labels, classes, counts=counts)


_compiled = functools.cache(
  lambda num_classes: jax.jit(
    functools.partial(metrics.frame_miou, num_classes=num_classes)
  )
)


def _map(draw, num_classes, ignored):
  """A class map of a few of the classes, so that others are empty."""
  seen = draw(st.sets(st.integers(0, num_classes - 1), min_size=1, max_size=4))
  values = sorted(seen) + ignored * [IGNORE]
  pixels = draw(st.lists(st.sampled_from(values), min_size=20, max_size=20))
  return np.array(pixels, np.uint8).reshape(SHAPE)


@st.composite
def _pairs(draw):
  """(num_classes, labels, classes), labels with ignored pixels or not."""
  num_classes = draw(st.sampled_from([1, 2, 3, 21, 255]))
  labels = _map(draw, num_classes, ignored=draw(st.booleans()))
  classes = labels.copy()
  answers = _map(draw, num_classes, ignored=False)
  wrong = np.array(draw(st.lists(st.booleans(), min_size=20, max_size=20)))
  wrong = wrong.reshape(SHAPE) | (labels == IGNORE)
  classes[wrong] = answers[wrong]
  return num_classes, labels, classes


@settings(deadline=None)
@given(_pairs(), st.booleans())
def test_frame_miou_equals_pixel_counting(pair, ignores_first_row):
  num_classes, labels, classes = pair
  counts = labels != IGNORE
  counts[0] &= not ignores_first_row
  ours = _compiled(num_classes)(labels, classes, counts=counts)
  expected = metrics_numpy.frame_miou(labels, classes, num_classes, counts)
  np.testing.assert_allclose(ours, expected, rtol=1e-6)
  assert ours.dtype == np.float32


# 1: 2 of 4 pixels; 2: 1 of 3; 3: nowhere; the last row does not count.
LABELS = np.array([[0, 1, 1], [0, 1, 2], [2, 0, 0], [255, 255, 255]], np.uint8)
CLASSES = np.array([[1, 1, 1], [0, 0, 2], [0, 2, 0], [3, 2, 1]], np.uint8)


@pytest.mark.parametrize("jit", [False, True])
def test_frame_by_hand(jit):
  ours = _frame_miou(LABELS, CLASSES, 4, jit=jit)
  np.testing.assert_allclose(ours, (2 / 4 + 1 / 3) / 2, rtol=1e-6)


def test_ignored_row_counts_where_it_is_asked_for():
  counts = np.ones(LABELS.shape, bool)
  ours = _frame_miou(LABELS, CLASSES, 4, counts)
  expected = (2 / 5 + 1 / 4 + 0 / 1) / 3  # each answer there is one more miss
  np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_frame_without_objects_agrees(jit):
  nothing = np.zeros(SHAPE, np.uint8)
  assert float(_frame_miou(nothing, nothing, 3, jit=jit)) == 1.0


def test_frame_that_is_ignored_agrees_whatever_the_answer():
  ignored = np.full(SHAPE, IGNORE, np.uint8)
  answer = np.full(SHAPE, 2, np.uint8)
  assert float(_frame_miou(ignored, answer, 3)) == 1.0


def test_object_on_one_side_only_disagrees():
  nothing = np.zeros(SHAPE, np.uint8)
  something = nothing.copy()
  something[0, 0] = 2
  assert float(_frame_miou(nothing, something, 3)) == 0.0
  assert float(_frame_miou(something, nothing, 3)) == 0.0


def test_frame_miou_over_a_batch():
  maps = np.stack([LABELS, CLASSES])
  counts = np.broadcast_to(LABELS != IGNORE, maps.shape)
  miou = functools.partial(metrics.frame_miou, num_classes=4)
  ours = jax.vmap(lambda a, b, c: miou(a, b, counts=c))(
    maps, maps[::-1], counts
  )
  np.testing.assert_allclose(ours, [(2 / 4 + 1 / 3) / 2] * 2, rtol=1e-6)


def _sum_confusion(pairs, num_classes):
  matrices = [metrics.confusion_matrix(*pair, num_classes) for pair in pairs]
  return sum(matrices)


@st.composite
def _runs(draw):
  num_classes = draw(st.integers(1, 5))
  frames = draw(st.integers(1, 4))
  maps = lambda ignored: _map(draw, num_classes, ignored)
  return num_classes, [
    (maps(draw(st.booleans())), maps(False)) for _ in range(frames)
  ]


@settings(deadline=None)
@given(_runs())
def test_run_equals_pixel_counting(run):
  num_classes, pairs = run
  confusion = _sum_confusion(pairs, num_classes)
  assert confusion.shape == (num_classes, num_classes)
  assert confusion.dtype == np.int64
  iou = metrics.iou_per_class(confusion)
  expected = metrics_numpy.run_iou(pairs, num_classes)
  seen = {c: iou[c] for c in np.flatnonzero(~np.isnan(iou))}
  assert seen == pytest.approx(expected)
  expected = metrics_numpy.run_miou(pairs, num_classes)
  assert metrics.run_miou(confusion) == pytest.approx(expected)


def test_confusion_has_labels_as_rows_and_answers_as_columns():
  confusion = metrics.confusion_matrix(
    np.array([1, 1, 1, 0], np.uint8), np.array([2, 2, 1, 2], np.uint8), 3
  )
  np.testing.assert_array_equal(confusion, [[0, 0, 1], [0, 1, 2], [0, 0, 0]])


def test_confusion_by_hand():
  confusion = metrics.confusion_matrix(LABELS, CLASSES, 4)
  # Nine pixels count.
  expected = [[2, 1, 1, 0], [1, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
  np.testing.assert_array_equal(confusion, expected)


def test_run_sums_before_it_divides():
  one = np.array([[1, 1, 1, 1]], np.uint8)
  rest = np.array([[0, 0, 0, 1]], np.uint8)
  pairs = [(one, one), (rest, np.zeros_like(rest))]
  confusion = _sum_confusion(pairs, 2)
  assert metrics.run_miou(confusion) == pytest.approx(4 / 5)  # not (1 + 0) / 2


def test_run_without_objects_agrees():
  nothing = np.zeros(SHAPE, np.uint8)
  ignored = np.full(SHAPE, IGNORE, np.uint8)
  for labels in (nothing, ignored):
    confusion = metrics.confusion_matrix(labels, nothing, 3)
    assert metrics.run_miou(confusion) == 1.0


def test_run_of_one_frame_is_the_frame():
  confusion = metrics.confusion_matrix(LABELS, CLASSES, 4)
  frame = _frame_miou(LABELS, CLASSES, 4)
  np.testing.assert_allclose(metrics.run_miou(confusion), frame, rtol=1e-6)


def test_largest_number_of_classes():
  labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
  assert float(_frame_miou(labels, labels, 255)) == 1.0
  confusion = metrics.confusion_matrix(labels, labels, 255)
  np.testing.assert_array_equal(confusion, np.eye(255, dtype=np.int64))
