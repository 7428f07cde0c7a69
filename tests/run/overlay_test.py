"""Tests of the overlay picture: colours, tags, sizes, what has no room."""

import numpy as np
import pytest

from ojd.formats import palette
from ojd.run import overlay
from ojd.types import IGNORE

NAMES = ("background", "car", "person")
CAPTION = overlay.Caption(7, False, 0, 16, 0.5, "truth", 0.28)


def _scene(height=192, width=320):
  """A grey frame, a car in the middle of the truth, another to its left."""
  frame = np.full((height, width, 3), 100, np.uint8)
  truth = np.zeros((height, width), np.uint8)
  truth[height // 4 : -height // 4, width // 2 : -width // 8] = 1
  student = np.zeros((height, width), np.uint8)
  student[height // 4 : -height // 4, width // 8 : width // 2] = 2
  return frame, truth, student


def _compose(scene, class_names=NAMES, **caption):
  return overlay.compose(
    *scene, class_names=class_names, caption=CAPTION._replace(**caption)
  )


def _panels(picture, height, width, class_names=NAMES):
  """The three panels, cut out of a picture."""
  layout = overlay._make_layout(height, width, class_names)
  rows = slice(layout.top, layout.top + height)
  return [picture[rows, left : left + width] for left in layout.lefts]


def test_panels_show_frame_reference_and_student():
  scene = _scene()
  picture = _compose(scene)
  frame, reference, student = _panels(picture, 192, 320)
  np.testing.assert_array_equal(frame, scene[0])
  colors = palette.colors(3).astype(float)
  mixed = np.round(0.45 * 100 + 0.55 * colors)
  np.testing.assert_allclose(reference[96, 200], mixed[1], atol=2)
  np.testing.assert_allclose(student[96, 100], mixed[2], atol=2)
  # The background keeps its picture, darker, in both.
  np.testing.assert_allclose(reference[96, 100], 70, atol=2)
  np.testing.assert_allclose(student[96, 200], 70, atol=2)
  # Objects have an opaque outline, on their own side.
  np.testing.assert_array_equal(reference[96, 160], colors[1])
  np.testing.assert_allclose(reference[96, 159], 70, atol=2)
  # The legend shows the colour of each class.
  layout = overlay._make_layout(192, 320, NAMES)
  legend = picture[layout.top + 192 :].reshape(-1, 3)
  for color in palette.colors(3):
    assert (legend == color).all(axis=-1).sum() > 20
  # A reference that is missing leaves its panel dark.
  picture = _compose((scene[0], None, scene[2]))
  _, reference, answer = _panels(picture, 192, 320)
  assert reference.max() < 30 < 100 < answer.max()


def test_ignored_pixels_are_hatched_in_grey():
  scene = _scene()
  scene[1][:40, :40] = IGNORE
  _, reference, _ = _panels(_compose(scene), 192, 320)
  corner = reference[5:35, 5:35].astype(int)
  assert len(np.unique(corner)) == 2  # stripes
  assert (corner > 100).all()  # of grey, which is lighter than the frame
  assert (np.ptp(corner, axis=-1) <= 1).all()


def test_key_frame_has_a_border_and_a_tag():
  scene = _scene()
  plain, key = _compose(scene), _compose(scene, is_key=True, num_updates=8)
  assert plain.shape == key.shape
  for row, column in ((0, 0), (-1, -1), (100, 0), (0, 500)):
    assert tuple(key[row, column]) == overlay.KEY_COLOR
    assert tuple(plain[row, column]) != overlay.KEY_COLOR
  layout = overlay._make_layout(192, 320, NAMES)
  strip = (slice(layout.border, layout.top), slice(layout.lefts[0], 324))
  is_tag = (key[strip] == overlay.KEY_COLOR).all(axis=-1)
  assert is_tag.sum() > 500
  assert not (plain[strip] == overlay.KEY_COLOR).all(axis=-1).any()
  # The pictures themselves stay as they are.
  for before, after in zip(
    _panels(plain, 192, 320), _panels(key, 192, 320), strict=True
  ):
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
  "change",
  (
    *({"t": 8}, {"seconds": 3.5}, {"miou": 0.6}, {"miou": None}),
    *({"stride": 32}, {"reference_title": "teacher, 12 frames ago"}),
    {"is_key": True, "num_updates": 8},
  ),
)
def test_every_word_of_the_caption_is_written(change):
  before = {"is_key": change.get("is_key", False), "num_updates": 1}
  scene = _scene()
  assert (_compose(scene, **before) != _compose(scene, **before | change)).any()


@pytest.mark.parametrize(
  "height,width", ((32, 32), (33, 47), (97, 31), (192, 320), (720, 1280))
)
@pytest.mark.parametrize("num_classes", (1, 3, 255))
def test_sides_are_even_and_the_same_for_every_caption(
  height, width, num_classes
):
  names = tuple(f"class number {i}" for i in range(num_classes))
  scene = _scene(height, width)
  scene[2][:] = np.minimum(scene[2], num_classes - 1)
  shapes = {
    _compose(scene, names, **change).shape
    for change in (
      {"is_key": True, "num_updates": 10**6},
      {"t": 10**9, "seconds": 4e7, "reference_title": "x" * 300},
      {"miou": None, "stride": 0},
    )
  }
  ((rows, columns, channels),) = shapes
  assert rows % 2 == columns % 2 == 0 and channels == 3
  assert rows >= height and columns >= 3 * width
  # However many classes there are, the picture is most of the picture.
  assert num_classes < 255 or rows < 2 * height + 80


def test_text_keeps_to_its_own_panel():
  scene = _scene(32, 32)
  layout = overlay._make_layout(32, 32, NAMES)
  picture = _compose(scene, t=10**9, reference_title="x" * 300)
  strip = picture[layout.border : layout.top]
  for left in layout.lefts[1:]:
    gap = strip[:, left - layout.gap : left]
    np.testing.assert_array_equal(gap, np.broadcast_to(gap[0, 0], gap.shape))


def test_shapes_are_checked():
  frame, truth, student = _scene()
  with pytest.raises(ValueError, match="reference"):
    _compose((frame, truth[1:], student))
  with pytest.raises(ValueError, match="student"):
    _compose((frame, truth, student.astype(np.int32)))


def test_colors_are_distinct_and_stay_with_their_class():
  colors = palette.colors(255)
  assert colors.shape == (255, 3) and colors.dtype == np.uint8
  table = np.frombuffer(palette.table(3), np.uint8).reshape(256, 3)
  np.testing.assert_array_equal(table[:3], colors[:3])
  assert (table[3:] == palette.IGNORED).all()
  assert tuple(colors[0]) == (0, 0, 0)
  assert len(np.unique(colors, axis=0)) == 255
  np.testing.assert_array_equal(palette.colors(7), colors[:7])
  assert palette.IGNORED not in [tuple(color) for color in colors.tolist()]
  for num_classes in (0, 256):
    with pytest.raises(ValueError, match="classes"):
      palette.colors(num_classes)


@pytest.mark.parametrize("num_classes", (11, 40))
def test_colors_stay_apart_without_green_cones(num_classes):
  seen = palette._as_seen(palette.colors(num_classes))
  for i in range(num_classes):
    others = np.delete(seen, i, axis=0)
    assert palette._distance(others, seen[i]).min() > 0.05**2
