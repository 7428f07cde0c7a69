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


@functools.cache
def _frame_miou(num_classes):
  return jax.jit(functools.partial(metrics.frame_miou, num_classes=num_classes))


def _map(rng, num_classes, ignored):
  """A class map of a few of the classes, so that others are empty."""
  seen = rng.integers(0, num_classes, rng.integers(1, 5)).tolist()
  return rng.choice(seen + ignored * [IGNORE], SHAPE).astype(np.uint8)


_seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(_seeds, st.sampled_from([1, 2, 3, 21, 255]), *[st.booleans()] * 2)
def test_frame_miou_equals_pixel_counting(
  seed, num_classes, ignored, all_count
):
  """An ignored pixel that counts all the same is a miss of its answer."""
  rng = np.random.default_rng(seed)
  labels = _map(rng, num_classes, ignored)
  answers = _map(rng, num_classes, ignored=False)
  is_wrong = (rng.random(SHAPE) < rng.random()) | (labels == IGNORE)
  classes = np.where(is_wrong, answers, labels)
  counts = all_count | (labels != IGNORE) & (rng.random(SHAPE) < 0.7)
  ours = _frame_miou(num_classes)(labels, classes, counts=counts)
  expected = metrics_numpy.frame_miou(labels, classes, num_classes, counts)
  np.testing.assert_allclose(ours, expected, rtol=1e-6)
  assert ours.dtype == np.float32


# 1: 2 of 4 pixels; 2: 1 of 3; 3: nowhere; the last row does not count.
LABELS = np.array([[0, 1, 1], [0, 1, 2], [2, 0, 0], [255, 255, 255]], np.uint8)
CLASSES = np.array([[1, 1, 1], [0, 0, 2], [0, 2, 0], [3, 2, 1]], np.uint8)
NOTHING = np.zeros(SHAPE, np.uint8)
CORNER = NOTHING.copy()
CORNER[0, 0] = 2
ALL_CLASSES = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
  ("labels", "classes", "num_classes", "expected"),
  [
    (LABELS, CLASSES, 4, (2 / 4 + 1 / 3) / 2),
    (NOTHING, NOTHING, 3, 1.0),  # no object on either side
    (NOTHING + IGNORE, NOTHING + 2, 3, 1.0),
    (NOTHING, CORNER, 3, 0.0),  # an object on one side alone
    (ALL_CLASSES, ALL_CLASSES, 255, 1.0),
  ],
)
def test_frame_by_hand(labels, classes, num_classes, expected):
  miou = _frame_miou(num_classes)
  ours = miou(labels, classes, counts=labels != IGNORE)
  np.testing.assert_allclose(ours, expected, rtol=1e-6)


@settings(deadline=None)
@given(_seeds, st.integers(1, 5), st.integers(1, 4))
def test_run_equals_pixel_counting(seed, num_classes, num_frames):
  rng = np.random.default_rng(seed)
  maps = lambda ignored: _map(rng, num_classes, ignored)
  pairs = [(maps(rng.random() < 0.5), maps(False)) for _ in range(num_frames)]
  matrices = [metrics.confusion_matrix(*pair, num_classes) for pair in pairs]
  confusion = sum(matrices)
  assert confusion.shape == (num_classes, num_classes)
  assert confusion.dtype == np.int64
  iou = metrics.iou_per_class(confusion)
  expected = metrics_numpy.run_iou(pairs, num_classes)
  seen = {c: iou[c] for c in np.flatnonzero(~np.isnan(iou))}
  assert seen == pytest.approx(expected)
  expected = metrics_numpy.run_miou(pairs, num_classes)
  assert metrics.run_miou(confusion) == pytest.approx(expected)


@pytest.mark.parametrize(
  ("labels", "classes", "matrix", "miou"),
  [
    # Labels are rows and answers columns.
    ([1, 1, 1, 0], [2, 2, 1, 2], [[0, 0, 1], [0, 1, 2], [0, 0, 0]], 1 / 6),
    # Sums before it divides: not (1 + 0) / 2, of [1111, 0001] and [1111, 0000].
    ([1, 1, 1, 1, 0, 0, 0, 1], [1] * 4 + [0] * 4, [[3, 0], [1, 4]], 4 / 5),
    (NOTHING + IGNORE, NOTHING, [[0, 0], [0, 0]], 1.0),
    (ALL_CLASSES, ALL_CLASSES, np.eye(255), 1.0),
  ],
)
def test_run_by_hand(labels, classes, matrix, miou):
  maps = np.asarray(labels, np.uint8), np.asarray(classes, np.uint8)
  confusion = metrics.confusion_matrix(*maps, len(matrix))
  np.testing.assert_array_equal(confusion, matrix)
  assert metrics.run_miou(confusion) == pytest.approx(miou)
