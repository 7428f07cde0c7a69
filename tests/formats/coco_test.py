"""COCO's format: squares cut out by hand, and files made by somebody unkind."""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from ojd.formats import coco
from tests.reference import pictures
from tests.reference.refusals import refused

H, W = 20, 30
DEEP = "[" * 100_000


def _square(top, left, bottom, right):
  mask = np.zeros((H, W), np.uint8)
  mask[top:bottom, left:right] = 1
  return mask


def _polygon(top, left, bottom, right):
  return [left, top, right, top, right, bottom, left, bottom]


def _compressed(mask):
  runs = coco_mask.encode(np.asfortranarray(mask))
  return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def _uncompressed(mask):
  edges = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=2))
  counts = np.diff(edges, prepend=0).tolist()
  return {"size": list(mask.shape), "counts": counts}


def _annotation(category, segmentation, **others):
  about = {"image_id": 1, "category_id": category}
  return about | {"segmentation": segmentation} | others


def _content():
  crowd = _uncompressed(_square(0, 20, 20, 30))
  return {
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    "images": [
      {"id": i, "file_name": f"{i}.png", "height": H, "width": W}
      for i in (1, 2)
    ],
    "annotations": [
      _annotation(3, [_polygon(5, 5, 8, 8)], iscrowd=0),  # small, on top
      _annotation(7, _compressed(_square(2, 2, 15, 15)), iscrowd=0),
      _annotation(3, _uncompressed(_square(10, 18, 14, 24))),
      _annotation(7, crowd, iscrowd=1),
    ],
  }


def _write(folder, content):
  for i in (1, 2):
    pictures.save(pictures.flat(i, H, W), folder / f"{i}.png")
  path = folder / "instances.json"
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return path


def _open(folder, content):
  return coco.open_coco(folder, _write(folder, content))


def test_small_things_lie_on_top_and_crowds_are_ignored(tmp_path):
  images = _open(tmp_path, _content())
  assert images.class_names == ("background", "cat", "dog") and len(images) == 2
  frame, classes = images.read(0)
  expected = np.zeros((H, W), np.uint8)
  expected[:, 20:30] = 255
  expected[2:15, 2:15] = 2
  expected[10:14, 18:24] = 1
  expected[5:8, 5:8] = 1
  np.testing.assert_array_equal(classes, expected)
  assert (frame == 1).all() and frame.shape == (H, W, 3)
  assert frame.dtype == classes.dtype == np.uint8
  frame, classes = images.read(1)  # nothing is said of it
  assert (frame == 2).all() and not classes.any()
  # They come in three colours whatever the file.
  pictures.save(np.full((H, W), 8, np.uint8), tmp_path / "1.png")
  assert (images.read(0)[0] == 8).all()
  red = np.tile(np.uint8([200, 0, 0, 9]), (H, W, 1))
  pictures.save(red, tmp_path / "1.png")
  assert (images.read(0)[0] == [200, 0, 0]).all()


def test_parts_of_a_thing_count_together_and_may_leave_the_image(tmp_path):
  parts = [_polygon(0, 0, 4, 6), _polygon(10, 20, H + 5, W + 9)]
  things = [
    _annotation(7, [_polygon(0, 0, 10, 10)]),  # 100 pixels, of 24 + 100
    _annotation(3, parts),
    _annotation(7, [_polygon(-9, -9, -2, -2)]),  # nowhere
  ]
  _, got = _open(tmp_path, _content() | {"annotations": things}).read(0)
  expected = np.zeros((H, W), np.uint8)
  expected[10:, 20:] = expected[:4, :6] = 1
  expected[:10, :10] = 2
  np.testing.assert_array_equal(got, expected)


@settings(deadline=None, max_examples=60)
@given(
  *(st.integers(0, 2**32 - 1), st.floats(0, 1)),
  *(st.integers(1, 40), st.integers(1, 40)),
)
def test_both_kinds_of_runs_give_the_mask_back(seed, share, height, width):
  rng = np.random.default_rng(seed)
  mask = (rng.random((height, width)) < share).astype(np.uint8)
  for make in (_compressed, _uncompressed):
    runs = coco._runs(make(mask), height, width)
    picture = coco._Picture(
      pathlib.Path(), height, width, [coco._Thing(1, [], runs)]
    )
    np.testing.assert_array_equal(coco._paint(picture, coco_mask), mask)


def test_long_runs_are_read_as_the_library_writes_them():
  mask = np.zeros((1000, 3000), np.uint8)
  mask[:, 700:2900] = 1
  mask[3, 5] = mask[-1, -1] = 1
  runs = coco._runs(_compressed(mask), *mask.shape)
  assert runs.tolist() == _uncompressed(mask)["counts"]


def test_square_of_a_side_keeps_the_shape_and_ignores_the_rest():
  image = np.full((H, W, 3), 9, np.uint8)
  classes = np.zeros((H, W), np.uint8)
  classes[:10] = 4
  for turn in (np.asarray, lambda x: x.swapaxes(0, 1)):
    frame, labels = map(
      turn, coco.resize_and_pad(turn(image), turn(classes), 60)
    )
    assert frame.shape == (60, 60, 3) and labels.shape == (60, 60)
    assert (labels[:20] == 4).all() and (labels[20:40] == 0).all()
    assert (labels[40:] == 255).all() and (frame[40:] == 0).all()
    assert (frame[:40] == 9).all()
  frame, labels = coco.resize_and_pad(image[:1], classes[:1], 2)
  assert labels.tolist() == [[4, 4], [255, 255]]  # never without a row


def _with(key, value, where="annotations", i=0):
  content = _content()
  content[where][i][key] = value
  return content


def _drawn(segmentation):
  return _with("segmentation", segmentation)


def _counts(counts, size=(H, W)):
  return _drawn({"size": size, "counts": counts})


def _categories(*names):
  items = [{"id": i, "name": name} for i, name in enumerate(names)]
  return _content() | {"categories": items, "annotations": []}


ZIGZAG = [[0, 0, W, H] * 20_000]


@pytest.mark.parametrize(
  ("content", "words"),
  [
    *(
      (text, "instances.json is not in COCO's format")
      for text in ("{", DEEP, '{"images": 1' + "0" * 5000 + "}")
    ),
    ("[]", "it holds no object"),
    ("{}", "it has no list of images"),
    (_content() | {"annotations": {}}, "it has no list of annotations"),
    (_content() | {"images": []}, "has no images"),
    (_content() | {"categories": []}, "has no categories"),
    (_content() | {"annotations": [3]}, "annotations[0]: 3 is no object"),
    (_categories(*map(str, range(255))), "more than 254 categories"),
    (_categories("a", 3), "categories[1]: name is 3, not text"),
    (_categories("a\nb"), r"categories[0]: 'a\nb' is no name"),
    (_categories("a", "a"), "categories[1]: the name 'a' is there already"),
    (_categories("background"), "the name 'background' is there already"),
    (_with("id", 7, "categories", 1), "categories[1]: the id 7 is there"),
    (_with("id", True, "categories"), "id is True, not a whole number"),
    (_with("id", "1", "images"), "images[0]: id is '1', not a whole number"),
    (_with("id", 1, "images", 1), "images[1]: the id 1 is there already"),
    (_with("file_name", None, "images"), "file_name is None, not text"),
    *(
      (_with("file_name", name, "images"), f"{name!r} is not in")
      for name in ("../1.png", "a/../../1.png", "/etc/passwd")
    ),
    *(
      (_with("file_name", name, "images"), f"there is no file {name!r}"[:40])
      for name in ("3.png", "", "a\0\n", "\ud800", "a" * 9999)
    ),
    (_with("height", 2.0, "images"), "height is 2.0, not a whole number"),
    (_with("height", 0, "images"), "height and width (0, 30): from 1 to"),
    (_with("width", 10**9, "images"), "height and width (20, 1000000000)"),
    (_with("image_id", 99), "annotations[0]: there is no image of id 99"),
    (_with("image_id", [1]), "annotations[0]: image_id is [1], not a whole"),
    (_with("category_id", 99), "there is no category of id 99"),
    (_with("category_id", None), "category_id is None, not a whole number"),
    (_with("iscrowd", "no"), "annotations[0]: iscrowd is 'no', not 0 or 1"),
    *((_drawn(x), "neither polygons nor runs") for x in (None, [], "text")),
    *(
      (_drawn(x), "a polygon that is no list of numbers")
      for x in ([3], [[1, 2, 3, 4, 5, "6"]])
    ),
    (_drawn([[1, 2, 3, 4]]), "a polygon of 4 numbers"),
    (_drawn([[1, 2, 3, 4, 5, 6, 7]]), "a polygon of 7 numbers"),
    *(
      (_drawn([[1, 2, 3, 4, 5, x]]), "a coordinate beyond 1048576, or none")
      for x in (math.nan, math.inf, 10**400)
    ),
    (_drawn(ZIGZAG), "outlines of 1240000 pixels, more than 1048576"),
    (_drawn([ZIGZAG[0][:20_000]] * 4), "outlines of 1240000 pixels"),
    (_drawn({}), "size None, its image [20, 30]"),
    (_counts([0, H * W], [W, H]), "size [30, 20], its image [20, 30]"),
    *(
      (_counts(counts), "counts that are no whole numbers")
      for counts in (None, [[1], [2, 3]], [0.5, 599.5])
    ),
    *(
      (_counts(counts), "counts that do not add up to 600")
      for counts in (
        *([], [0, H * W + 1], [H * W + 5, -5], "", "1", "oooooo?" * 60),
        [H * W + 2**64, -(2**64)],
      )
    ),
    *(
      (_counts(counts), "not COCO's letters")
      for counts in ("\x01", "é", "o" * 20 + "0")
    ),
    (_counts("o"), "counts that break off"),
  ],
)
def test_bad_annotations_are_one_line(tmp_path, content, words):
  with refused(words) as error:
    _open(tmp_path, content)
  message = str(error.value)
  assert message.startswith(f"--data: {tmp_path / 'instances.json'}")
  assert len(message) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      lambda path: pictures.save(pictures.flat(0, H, W + 1), path),
      "has height and width (20, 31), its annotations (20, 30)",
    ),
    (lambda path: path.write_text("no image\n"), "cannot be read"),
    (lambda path: os.truncate(path, 200), "cannot be read"),
    (lambda path: path.unlink(), "cannot be read"),
  ],
)
def test_bad_images_are_one_line(tmp_path, change, words):
  images = _open(tmp_path, _content())
  path = tmp_path / "1.png"
  pictures.save(pictures.noise(0, H, W), path)
  change(path)
  with refused(f"--data: {path} ", words):
    images.read(0)


def test_what_is_absent_or_large_is_one_line(tmp_path, monkeypatch):
  path = _write(tmp_path, _content())
  with refused("none.json cannot be read: No such"):
    coco.open_coco(tmp_path, tmp_path / "none.json")
  with refused("there is no folder", "nowhere"):
    coco.open_coco(tmp_path / "nowhere", path)
  with monkeypatch.context() as patch:
    patch.setitem(sys.modules, "pycocotools", None)
    with refused("pip install pycocotools"):
      coco.open_coco(tmp_path, path)
  os.truncate(path, (4 << 30) + (1 << 20))  # takes no room on the disk
  with refused("4097 MiB, more than 4096"):
    coco.open_coco(tmp_path, path)
  # The module can be imported without pycocotools.
  code = (
    "import sys; sys.modules['pycocotools'] = None; import ojd.formats.coco"
  )
  root = pathlib.Path(coco.__file__).parents[2]
  subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
