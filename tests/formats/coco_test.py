"""COCO's format against squares cut out by hand and the library's own codec."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from ojd.errors import RequestError
from ojd.formats import coco

H, W = 20, 30
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def _square(top, left, bottom, right):
  mask = np.zeros((H, W), np.uint8)
  mask[top:bottom, left:right] = 1
  return mask


def _polygon(top, left, bottom, right):
  return [[left, top, right, top, right, bottom, left, bottom]]


def _compressed(mask):
  runs = coco_mask.encode(np.asfortranarray(mask))
  return {"size": [H, W], "counts": runs["counts"].decode()}


def _uncompressed(mask):
  flat = mask.T.ravel()
  edges = np.flatnonzero(np.diff(flat)) + 1
  counts = np.diff([0, *edges, flat.size]).tolist()
  return {"size": [H, W], "counts": ([0] if flat[0] else []) + counts}


def _annotation(i, category, segmentation, crowd=0):
  return {
    "id": i,
    "image_id": 1,
    "category_id": category,
    "iscrowd": crowd,
    "segmentation": segmentation,
  }


def _content():
  crowd = _uncompressed(_square(0, 20, 20, 30))
  return {
    "categories": [dict(category) for category in CATEGORIES],
    "images": [
      {"id": i, "file_name": f"{i}.png", "height": H, "width": W}
      for i in (1, 2)
    ],
    "annotations": [
      _annotation(10, 3, _polygon(5, 5, 8, 8)),  # small, on top
      _annotation(11, 7, _compressed(_square(2, 2, 15, 15))),
      _annotation(12, 3, _uncompressed(_square(10, 18, 14, 24))),
      _annotation(13, 7, crowd, crowd=1),
    ],
  }


def _write(folder, content):
  for i in (1, 2):
    Image.fromarray(np.full((H, W, 3), i, np.uint8)).save(folder / f"{i}.png")
  path = folder / "instances.json"
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return coco.open_coco(folder, path)


def test_small_things_lie_on_top_and_crowds_are_ignored(tmp_path):
  images = _write(tmp_path, _content())
  assert images.class_names == ("background", "cat", "dog") and len(images) == 2
  frame, classes = images.read(0)
  expected = np.zeros((H, W), np.uint8)
  expected[:, 20:30] = 255
  expected[2:15, 2:15] = 2
  expected[10:14, 18:24] = 1
  expected[5:8, 5:8] = 1
  np.testing.assert_array_equal(classes, expected)
  assert (frame == 1).all()
  frame, classes = images.read(1)  # nothing is said of it
  assert (frame == 2).all() and not classes.any()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_both_kinds_of_run_lengths_give_the_mask_back(seed, share):
  mask = (np.random.default_rng(seed).random((H, W)) < share).astype(np.uint8)
  for runs in (_compressed(mask), _uncompressed(mask)):
    got = coco.paint([_annotation(1, 3, runs)], {3: 1}, H, W)
    np.testing.assert_array_equal(got, mask)


def test_square_of_a_side_keeps_the_shape_and_ignores_the_rest():
  image = np.full((H, W, 3), 9, np.uint8)
  classes = np.zeros((H, W), np.uint8)
  classes[:10] = 4
  frame, labels = coco.resize_and_pad(image, classes, 60)
  assert frame.shape == (60, 60, 3)
  assert (labels[:20] == 4).all() and (labels[20:40] == 0).all()
  assert (labels[40:] == 255).all() and (frame[40:] == 0).all()
  assert (frame[:40] == 9).all()


def _with(key, value, where="annotations", i=0):
  content = _content()
  content[where][i][key] = value
  return content


RUNS = {"size": [H, W], "counts": [0, H * W]}


@pytest.mark.parametrize(
  "content",
  [
    "{",
    "[]",
    "{}",
    _content() | {"images": []},
    _content() | {"categories": []},
    _content() | {"annotations": [3]},
    _content()
    | {"categories": [{"id": i, "name": str(i)} for i in range(300)]},
    _with("name", 3, "categories"),
    _with("file_name", "../1.png", "images"),
    _with("file_name", "/etc/passwd", "images"),
    _with("height", 10**9, "images"),
    _with("height", H + 1, "images"),  # not what the file is
    _with("file_name", "3.png", "images"),  # not there
    _with("image_id", 99),
    _with("category_id", 99),
    _with("category_id", None),
    _with("segmentation", None),
    _with("segmentation", [[1, 2, 3, 4]]),
    _with("segmentation", [[1, 2, 3, 4, 5, "x"]]),
    _with("segmentation", [[1, 2, 3, 4, 5, float("nan")]]),
    _with("segmentation", RUNS | {"size": [W, H]}),
    _with("segmentation", RUNS | {"counts": [0, H * W + 1]}),
    _with("segmentation", RUNS | {"counts": [H * W + 5, -5]}),
    _with("segmentation", RUNS | {"counts": [0.5, 1.5]}),
    _with("segmentation", RUNS | {"counts": "oooooooooooooooooooo"}),
    _with("segmentation", RUNS | {"counts": "\x01"}),
    _with("segmentation", RUNS | {"counts": "P"}),
    _with("segmentation", {"size": 3, "counts": []}),
  ],
)
def test_bad_annotations_are_one_line(tmp_path, content):
  with pytest.raises(RequestError, match="--data") as error:
    _write(tmp_path, content).read(0)
  assert "\n" not in str(error.value)


def test_absent_files_are_one_line(tmp_path):
  with pytest.raises(RequestError, match=r"none\.json"):
    coco.open_coco(tmp_path, tmp_path / "none.json")
  path = tmp_path / "good.json"
  path.write_text(json.dumps(_content()))
  with pytest.raises(RequestError, match="no folder"):
    coco.open_coco(tmp_path / "nowhere", path)
