"""Class groups, boxes, weights and instances, by hand and against a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.types import IGNORE, Instances
from tests.reference import labels_loop

TEACHER = ("background", "person", "bicycle", "car", "bus", "truck", "dog")
GROUPS_TEXT = " person ; auto = car , bus,truck; bike =bicycle "
GROUPS = (("person",), ("car", "bus", "truck"), ("bicycle",))  # no dog
H, W = 20, 24


def _groups(text=GROUPS_TEXT):
  return labels_lib.parse_groups(text, TEACHER)


# Class groups.


def test_groups_in_the_order_of_the_text():
  groups = _groups()
  assert groups.names == ("background", "person", "auto", "bike")
  assert groups.members == ((), *GROUPS)
  assert list(groups.lookup[:7]) == [0, 1, 3, 2, 2, 2, 0]
  assert set(groups.lookup[7:255]) == {0}
  assert groups.lookup[IGNORE] == IGNORE
  assert groups.lookup.dtype == np.uint8


@pytest.mark.parametrize("text", ["", "  "])
def test_no_text_keeps_the_classes_of_the_teacher(text):
  groups = _groups(text)
  assert groups.names == TEACHER
  np.testing.assert_array_equal(groups.lookup[:7], range(7))


def test_group_may_bear_the_name_of_another_class():
  groups = _groups("car=bus;bus=car")
  assert groups.names == ("background", "car", "bus")
  assert (groups.lookup[4], groups.lookup[3]) == (1, 2)


def test_unknown_class_is_told_the_known_ones():
  with pytest.raises(UserError, match="'cat'") as error:
    _groups("person;pet=dog,cat")
  assert "person, bicycle, car, bus, truck, dog" in str(error.value)


@pytest.mark.parametrize(
  ("text", "culprit"),
  [
    ("person;person", "'person' is there already"),
    ("auto=car;auto=bus", "'auto' is there already"),
    ("background", "'background' is there already"),
    ("background=car", "'background' is there already"),
    ("thing=background", "no 'background'"),
    ("auto=car;other=car", "'car' is in 'auto' and in 'other'"),
    ("auto=car,car", "'car' is in 'auto'"),
    ("person;", "''"),
    (";person", "''"),
    ("person;;dog", "''"),
    ("auto=", "'auto='"),
    ("=car", "'=car'"),
    ("auto=car,,bus", "'auto=car,,bus'"),
    ("auto=car=bus", "'car=bus'"),
    ("person,dog", "'person,dog'"),
  ],
)
def test_bad_groups_are_refused(text, culprit):
  with pytest.raises(UserError, match="--classes") as error:
    _groups(text)
  assert culprit in str(error.value)
  assert "\n" not in str(error.value)


def test_more_classes_than_a_byte_holds():
  names = ("background", *(f"c{i}" for i in range(255)))
  with pytest.raises(UserError, match="255 classes"):
    labels_lib.parse_groups("", names)
  most = labels_lib.parse_groups("", names[:-1])
  assert len(most.names) == 255
  np.testing.assert_array_equal(most.lookup, range(256))


def test_teacher_may_know_more_than_a_byte_holds():
  names = ("background", *(f"c{i}" for i in range(1, 400)))
  groups = labels_lib.parse_groups("c1;c399;c255", names)
  instances = _instances(
    [(0, 0, 4, 4), (4, 4, 8, 8)], class_ids=[399, 255], masks=np.ones((2, H, W))
  )
  classes, _ = labels_lib.from_instances(instances, groups, H, W)
  assert (classes[1, 1], classes[5, 5], classes[9, 9]) == (2, 3, 0)


def test_match_groups_by_name():
  other = ("background", "truck", "sky", "person", "car")
  groups = labels_lib.match_groups(_groups(), other)
  assert groups.names == _groups().names
  assert list(groups.lookup[:5]) == [0, 2, 0, 1, 2]
  assert set(groups.lookup[5:255]) == {0}
  assert groups.lookup[IGNORE] == IGNORE


# Boxes around components.


def _boxes(rows):
  """Boxes of a map drawn with digits; `#` is ignored."""
  value = lambda c: IGNORE if c == "#" else int(c)
  classes = np.array([[value(c) for c in row] for row in rows], np.uint8)
  return sorted(map(tuple, labels_lib.boxes_of_class_map(classes).tolist()))


def test_pixels_that_touch_at_a_corner_are_one_component():
  assert _boxes(["1000", "0100", "0010", "0000"]) == [(0, 0, 3, 3)]
  assert _boxes(["0010", "0100", "0000"]) == [(0, 1, 2, 3)]


def test_pixels_apart_are_two_components():
  assert _boxes(["1010", "1010"]) == [(0, 0, 2, 1), (0, 2, 2, 3)]


def test_classes_have_boxes_of_their_own():
  assert _boxes(["1120", "1122", "0002"]) == [(0, 0, 2, 2), (0, 2, 3, 4)]
  assert _boxes(["121"]) == [(0, 0, 1, 1), (0, 1, 1, 2), (0, 2, 1, 3)]


def test_ring_holds_the_box_inside_it():
  assert _boxes(["111", "121", "111"]) == [(0, 0, 3, 3), (1, 1, 2, 2)]


def test_background_and_ignored_pixels_have_no_box():
  assert _boxes(["0##", "0#0"]) == []
  assert _boxes(["1#1"]) == [(0, 0, 1, 1), (0, 2, 1, 3)]
  empty = labels_lib.boxes_of_class_map(np.zeros((3, 3), np.uint8))
  assert empty.shape == (0, 4)


# Pixel weights.


def _weights(shape, *boxes):
  boxes = np.array(boxes, np.int32).reshape(-1, 4)
  return labels_lib.pixel_weights(np.zeros(shape, np.uint8), boxes)


def test_box_grows_by_15_percent_on_each_side():
  weights = _weights((100, 100), (40, 20, 60, 60))
  expected = np.ones((100, 100), np.float32)
  expected[40 - 3 : 60 + 3, 20 - 6 : 60 + 6] = 5
  np.testing.assert_array_equal(weights, expected)
  assert weights.dtype == np.float32


def test_pixel_partly_in_the_grown_box_is_inside():
  # 15% of 10 is 1.5: rows 8.5 to 21.5; of 4 it is 0.6: columns 5.4 to 10.6.
  weights = _weights((30, 30), (10, 6, 20, 10))
  expected = np.ones((30, 30), np.float32)
  expected[8:22, 5:11] = 5
  np.testing.assert_array_equal(weights, expected)


def test_grown_box_is_cut_at_the_edges():
  expected = np.ones((30, 40), np.float32)
  expected[:12, 17:] = 5
  weights = _weights((30, 40), (0, 20, 10, 40))
  np.testing.assert_array_equal(weights, expected)
  np.testing.assert_array_equal(
    _weights((9, 7), (0, 0, 9, 7)), np.full((9, 7), 5)
  )


def test_ignored_pixels_weigh_nothing_even_in_a_box():
  classes = np.zeros((30, 30), np.uint8)
  classes[:15] = IGNORE
  boxes = np.array([[10, 10, 20, 20]])
  weights = labels_lib.pixel_weights(classes, boxes)
  assert not weights[:15].any()
  np.testing.assert_array_equal(np.unique(weights[15:]), [1, 5])


def test_class_map_is_grouped_before_its_boxes_are_drawn():
  classes = np.zeros((H, W), np.uint8)
  classes[4:8, 4:6], classes[4:8, 6:8] = 3, 5  # half car, half truck
  classes[10, 10], classes[19, 23] = 6, IGNORE  # a dog, which no group holds
  grouped, weights = labels_lib.from_class_map(classes, _groups())
  expected = np.zeros((H, W), np.uint8)
  expected[4:8, 4:8], expected[19, 23] = 2, IGNORE
  np.testing.assert_array_equal(grouped, expected)
  expected = np.ones((H, W), np.float32)
  expected[3:9, 3:9], expected[19, 23] = 5, 0
  np.testing.assert_array_equal(weights, expected)


# Instances.


def _instances(boxes, class_ids, masks, scores=None):
  scores = np.ones(len(boxes)) if scores is None else scores
  return Instances(
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(scores, np.float32),
    np.array(class_ids, np.int32),
    np.asarray(masks, np.float32),
  )


def _random_instances(seed, num, mask_size=None):
  """Boxes inside the frame, some with no pixel in them; masks as asked for.

  Masks of the frame are 0 outside their boxes, as those of detectors are.
  """
  rng = np.random.default_rng(seed)
  y = np.sort(rng.uniform(0, H, (num, 2)), axis=1)
  x = np.sort(rng.uniform(0, W, (num, 2)), axis=1)
  thin = rng.random(num) < 0.15
  y[thin, 1] = y[thin, 0]
  boxes = np.stack([y[:, 0], x[:, 0], y[:, 1], x[:, 1]], axis=1)
  if mask_size:
    masks = _smooth(rng, num, mask_size)
  else:
    masks = _smooth(rng, num, H, W)
    for mask, box in zip(masks, boxes.astype(int), strict=True):
      inside = np.zeros((H, W), bool)
      inside[box[0] : box[2], box[1] : box[3]] = True
      mask[~inside] = 0
  class_ids = rng.integers(1, len(TEACHER), num)
  scores = rng.choice([0.3, 0.49, 0.5, 0.8, 1.0], num)
  return _instances(boxes, class_ids, masks, scores)


def _smooth(rng, num, height, width=None):
  """Soft blobs: noise enlarged from a 4x4 grid."""
  grid = torch.from_numpy(rng.random((num, 1, 4, 4)))
  size = (height, width or height)
  return torch.nn.functional.interpolate(grid, size, mode="bilinear")[:, 0]


def _assert_equals_loop(instances):
  ours = labels_lib.from_instances(instances, _groups(), H, W)
  expected = labels_loop.from_instances(instances, TEACHER, GROUPS, H, W)
  np.testing.assert_array_equal(ours.classes, expected[0])
  np.testing.assert_array_equal(ours.weights, expected[1])
  assert (ours.classes.dtype, ours.weights.dtype) == (np.uint8, np.float32)
  return ours


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_masks_of_the_frame_equal_the_loop(seed, num):
  _assert_equals_loop(_random_instances(seed, num))


@settings(deadline=None, max_examples=60)
@given(
  st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([28, 5, 1])
)
def test_masks_of_the_box_equal_the_loop(seed, num, mask_size):
  _assert_equals_loop(_random_instances(seed, num, mask_size))


def test_soft_mask_is_enlarged_as_torch_does():
  mask = np.random.default_rng(0).random((28, 28), np.float32)
  box = (2, 3, 18, 21)
  found = labels_lib.from_instances(
    _instances([box], [1], mask[None]), _groups(), H, W
  )
  enlarged = torch.nn.functional.interpolate(
    torch.from_numpy(mask)[None, None], (16, 18), mode="bilinear"
  )
  expected = np.zeros((H, W), np.uint8)
  expected[2:18, 3:21] = enlarged[0, 0].numpy() >= 0.5
  np.testing.assert_array_equal(found.classes, expected)


def test_score_and_mask_count_from_one_half():
  boxes = [(0, 0, 4, 4), (0, 10, 4, 14), (10, 0, 14, 4)]
  masks = np.zeros((3, H, W))
  masks[0, :4, :4], masks[0, 0, 0] = 0.5, 0.4999
  masks[1, :4, 10:14] = 1
  masks[2, 10:14, :4] = 0.4999
  found = labels_lib.from_instances(
    _instances(boxes, [1, 1, 1], masks, [0.5, 0.4999, 1]), _groups(), H, W
  )
  expected = np.zeros((H, W), np.uint8)
  expected[:4, :4] = 1
  expected[0, 0] = 0
  np.testing.assert_array_equal(found.classes, expected)
  # The box of a detection counts even where its mask is empty.
  assert found.weights[12, 2] == 5
  assert found.weights[2, 12] == 1


@pytest.mark.parametrize(
  "box",
  [(5, 5, 5, 9), (5, 5, 9, 5), (9, 9, 5, 5), (5.2, 5, 5.9, 9), (50, 5, 60, 9)],
)
def test_box_without_a_pixel_is_skipped(box):
  for masks in (np.ones((1, 28, 28)), np.ones((1, H, W))):
    found = labels_lib.from_instances(
      _instances([box], [1], masks), _groups(), H, W
    )
    assert not found.classes.any()
    np.testing.assert_array_equal(found.weights, np.ones((H, W)))


@pytest.mark.parametrize("size", [(28, 28), (H, W)])
def test_no_instances(size):
  nothing = _instances(np.zeros((0, 4)), [], np.zeros((0, *size)))
  found = labels_lib.from_instances(nothing, _groups(), H, W)
  np.testing.assert_array_equal(found.classes, np.zeros((H, W)))
  np.testing.assert_array_equal(found.weights, np.ones((H, W)))


def test_mask_of_a_box_that_leaves_the_frame_is_cut_not_squeezed():
  mask = np.zeros((1, 28, 28))
  mask[..., 21:] = 1  # the right quarter of the box
  found = labels_lib.from_instances(
    _instances([(0, -8, 8, 8)], [1], mask), _groups(), H, W
  )
  expected = np.zeros((H, W), np.uint8)
  expected[:8, 4:8] = 1
  np.testing.assert_array_equal(found.classes, expected)
