"""Class groups, boxes, weights and instances, by hand and against a loop."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ojd import labels as labels_lib
from ojd.types import IGNORE, Instances
from tests.reference import labels_loop
from tests.reference.refusals import refused

TEACHER = ("background", "person", "bicycle", "car", "bus", "truck", "dog")
GROUPS_TEXT = " person ; auto = car , bus,truck; bike =bicycle "
GROUPS = (("person",), ("car", "bus", "truck"), ("bicycle",))  # no dog
H, W = 20, 24


def _groups(text=GROUPS_TEXT):
  return labels_lib.parse_groups(text, TEACHER)


# Class groups.


@pytest.mark.parametrize(
  ("text", "names", "lookup"),
  [
    (GROUPS_TEXT, ("background", "person", "auto", "bike"), [1, 3, 2, 2, 2, 0]),
    # Without a text the classes of the teacher stay.
    ("", TEACHER, [1, 2, 3, 4, 5, 6]),
    ("  ", TEACHER, [1, 2, 3, 4, 5, 6]),
    # A group may bear the name of another class.
    ("car=bus;bus=car", ("background", "car", "bus"), [0, 0, 2, 1, 0, 0]),
  ],
)
def test_groups_in_the_order_of_the_text(text, names, lookup):
  groups = _groups(text)
  assert groups.names == names
  assert groups.lookup.tolist() == [0, *lookup, *[0] * 248, IGNORE]
  assert groups.lookup.dtype == np.uint8
  assert _groups().members == ((), *GROUPS)


@pytest.mark.parametrize(
  ("text", "culprit"),
  [
    ("person;pet=dog,cat", "'cat'; it knows person, bicycle, car, bus, truck"),
    ("person;person", "'person' is there already"),
    ("auto=car;auto=bus", "'auto' is there already"),
    ("background", "'background' is there already"),
    ("background=car", "'background' is there already"),
    ("thing=background", "no 'background'"),
    ("auto=car;other=car", "'car' is in 'auto' and in 'other'"),
    ("auto=car,car", "'car' is in 'auto'"),
    *((text, "''") for text in ("person;", ";person", "person;;dog")),
    ("auto=", "'auto='"),
    ("=car", "'=car'"),
    ("auto=car,,bus", "'auto=car,,bus'"),
    ("auto=car=bus", "'car=bus'"),
    ("person,dog", "'person,dog'"),
  ],
)
def test_bad_groups_are_refused(text, culprit):
  with refused("--classes", culprit):
    _groups(text)


def test_more_classes_than_a_byte_holds():
  names = ("background", *(f"c{i}" for i in range(1, 400)))
  with refused("255 classes"):
    labels_lib.parse_groups("", names[:256])
  most = labels_lib.parse_groups("", names[:255])
  assert len(most.names) == 255
  np.testing.assert_array_equal(most.lookup, range(256))
  # The teacher may know more.
  groups = labels_lib.parse_groups("c1;c399;c255", names)
  boxes = np.float32([(0, 0, 4, 4), (4, 4, 8, 8)])
  whole = np.ones(2, np.float32), np.array([399, 255]), np.ones((2, H, W))
  found = labels_lib.from_instances(Instances(boxes, *whole), groups, H, W)
  assert found.classes[[1, 5, 9], [1, 5, 9]].tolist() == [2, 3, 0]


def test_match_groups_by_name():
  other = ("background", "truck", "sky", "person", "car")
  groups = labels_lib.match_groups(_groups(), other)
  assert groups.names == _groups().names
  assert groups.lookup.tolist() == [0, 2, 0, 1, 2, *[0] * 250, IGNORE]


# Boxes around components.


@pytest.mark.parametrize(
  ("rows", "boxes"),
  [
    # Pixels that touch at a corner are one component.
    (["1000", "0100", "0010", "0000"], [[0, 0, 3, 3]]),
    (["0010", "0100", "0000"], [[0, 1, 2, 3]]),
    (["1010", "1010"], [[0, 0, 2, 1], [0, 2, 2, 3]]),
    # Classes have boxes of their own, one in the other if need be.
    (["1120", "1122", "0002"], [[0, 0, 2, 2], [0, 2, 3, 4]]),
    (["121"], [[0, 0, 1, 1], [0, 1, 1, 2], [0, 2, 1, 3]]),
    (["111", "121", "111"], [[0, 0, 3, 3], [1, 1, 2, 2]]),
    # `#` is ignored.
    (["0##", "0#0"], []),
    (["1#1"], [[0, 0, 1, 1], [0, 2, 1, 3]]),
  ],
)
def test_boxes_surround_the_components_of_a_class(rows, boxes):
  digits = [[IGNORE if c == "#" else int(c) for c in row] for row in rows]
  found = labels_lib.boxes_of_class_map(np.array(digits, np.uint8))
  assert sorted(found.tolist()) == boxes and found.shape[1] == 4


# Pixel weights.


@pytest.mark.parametrize(
  ("box", "inside"),
  [
    # A box grows by 15 percent on each side, and is cut at the edges.
    ((40, 20, 60, 60), np.s_[40 - 3 : 60 + 3, 20 - 6 : 60 + 6]),
    ((0, 50, 10, 70), np.s_[:12, 47:]),
    ((0, 0, 100, 70), np.s_[:, :]),
    # A pixel partly inside is inside: 15% of 10 is 1.5, rows 8.5 to 21.5; of 4
    # it is 0.6, columns 5.4 to 10.6.
    ((10, 6, 20, 10), np.s_[8:22, 5:11]),
  ],
)
def test_pixels_in_the_grown_box_weigh_more(box, inside):
  for num_ignored in (0, 15):
    classes = np.zeros((100, 70), np.uint8)
    classes[:num_ignored] = IGNORE
    expected = np.ones((100, 70), np.float32)
    expected[inside] = 5
    expected[:num_ignored] = 0  # even in a box
    weights = labels_lib.pixel_weights(classes, np.array([box], np.int32))
    np.testing.assert_array_equal(weights, expected)
    assert weights.dtype == np.float32


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


@settings(deadline=None, max_examples=120)
@given(
  *(st.integers(0, 2**32 - 1), st.integers(0, 6)),
  st.sampled_from([None, None, None, 28, 5, 1]),
)
def test_instances_equal_the_loop(seed, num, mask_size):
  """Boxes beyond the frame, some without a pixel; masks of frame or box."""
  rng = np.random.default_rng(seed)
  y = np.sort(rng.uniform(-8, H + 8, (num, 2)), axis=1)
  x = np.sort(rng.uniform(-8, W + 8, (num, 2)), axis=1)
  is_odd = rng.random(num) < 0.15
  y[is_odd] = y[is_odd, ::-1]
  boxes = np.stack([y[:, 0], x[:, 0], y[:, 1], x[:, 1]], 1).astype(np.float32)
  # Soft blobs: noise enlarged from a 4x4 grid.
  grids = rng.random((num, 4, 4), np.float32)
  size = (mask_size or H, mask_size or W)
  masks = [cv2.resize(grid, size[::-1]) for grid in grids]
  masks = np.reshape(masks, (num, *size)).astype(np.float32)
  if mask_size is None:  # they are not enlarged, and one half is met exactly
    masks = masks.round(1)
  class_ids = rng.integers(1, len(TEACHER), num)
  scores = rng.choice(np.float32([0.3, 0.49, 0.5, 0.8, 1.0]), num)
  instances = Instances(boxes, scores, class_ids.astype(np.int32), masks)
  ours = labels_lib.from_instances(instances, _groups(), H, W)
  expected = labels_loop.from_instances(
    (boxes, scores, class_ids, masks), TEACHER, GROUPS, H, W
  )
  np.testing.assert_array_equal(ours.classes, expected[0])
  np.testing.assert_array_equal(ours.weights, expected[1])
  assert (ours.classes.dtype, ours.weights.dtype) == (np.uint8, np.float32)
