"""Boxes and areas of class maps, against a flood fill and COCO's own reader."""

import contextlib
import io
import json

import numpy as np
import pytest

from ojd.run import overlay, regions, sinks, workdir, writers

NAMES = ("background", "person", "car", "dog")


def _record(t, classes):
  frame = np.zeros((*classes.shape, 3), np.uint8)
  caption = overlay.Caption(t, False, 0, 8, None, "truth", t / 10)
  return writers.FrameRecord(t, frame, None, classes, caption)


def _noise(seed, height=30, width=40):
  """Blobs that touch at corners and at the edges."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 4, (height // 2, width // 2)).astype(np.uint8)
  coarse[rng.random(coarse.shape) < 0.5] = 0
  return np.repeat(np.repeat(coarse, 2, 0), 2, 1)


def _flood_fill(classes):
  """(class, [x, y, w, h], area) of each component, pixel by pixel."""
  height, width = classes.shape
  seen, found = set(), []
  for start in np.ndindex(classes.shape):
    label = classes[start]
    if label == 0 or start in seen:
      continue
    seen.add(start)
    stack, pixels = [start], []
    while stack:
      y, x = stack.pop()
      pixels.append((y, x))
      for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
          other = (y + dy, x + dx)
          if not (0 <= other[0] < height and 0 <= other[1] < width):
            continue
          if other not in seen and classes[other] == label:
            seen.add(other)
            stack.append(other)
    rows, columns = zip(*pixels, strict=True)
    box = [min(columns), min(rows)]
    box += [max(columns) - box[0] + 1, max(rows) - box[1] + 1]
    found.append((int(label), box, len(pixels)))
  return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [0.0, 0.005, 0.02])
def test_detections_are_those_of_a_flood_fill(seed, least, monkeypatch):
  monkeypatch.setattr(regions, "MIN_AREA", least)
  classes = _noise(seed)
  found = regions.detections(7, classes)
  expected = [x for x in _flood_fill(classes) if x[2] >= least * classes.size]
  key = lambda x: (x[0], x[1])
  assert sorted(
    ((x["category_id"], x["bbox"], x["area"]) for x in found), key=key
  ) == sorted(expected, key=key)
  assert {x["image_id"] for x in found} <= {7}
  assert {x["score"] for x in found} <= {1.0}


def test_specks_are_left_out_by_their_share_of_the_frame():
  classes = np.zeros((100, 100), np.uint8)
  classes[0, 0:5] = 1  # 0.0005 of the frame
  classes[50, 0:4] = 1
  (found,) = regions.detections(0, classes)
  assert found["bbox"] == [0, 0, 5, 1] and found["area"] == 5


def test_boxes_are_in_pixels_of_the_source(tmp_path):
  (sink,) = sinks.open_sinks(tmp_path, 10.0, NAMES, boxes=True, size=(96, 128))
  classes = np.zeros((48, 64), np.uint8)
  classes[10:20, 5:25] = 3
  sink.put(_record(4, classes))
  sink.close()
  (line,) = (tmp_path / workdir.BOXES).read_text().splitlines()
  assert json.loads(line) == {
    "image_id": 4,
    "category_id": 3,
    "bbox": [10, 20, 40, 20],
    "score": 1.0,
    "area": 800,
  }


def _write(path, times, start=0):
  (sink,) = sinks.open_sinks(path, 10.0, NAMES, boxes=True, start=start)
  for t in times:
    sink.put(_record(t, _noise(t)))
  sink.close()


def test_array_holds_the_lines_of_a_run_gone_on_with(tmp_path):
  _write(tmp_path, range(4))
  _write(tmp_path, range(2, 6), start=2)
  lines = (tmp_path / workdir.BOXES).read_text().splitlines()
  array = json.loads((tmp_path / workdir.BOX_LIST).read_text())
  assert array == [json.loads(line) for line in lines]
  assert array == [
    x for t in range(6) for x in regions.detections(t, _noise(t))
  ]


def test_run_without_objects_leaves_an_empty_array(tmp_path):
  (sink,) = sinks.open_sinks(tmp_path, 10.0, NAMES, boxes=True)
  sink.put(_record(0, np.zeros((32, 32), np.uint8)))
  sink.close()
  assert json.loads((tmp_path / workdir.BOX_LIST).read_text()) == []


def test_array_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
  _write(tmp_path, range(2))
  path = tmp_path / workdir.BOX_LIST
  before = path.read_bytes()

  def replace(*args):
    raise OSError("No space left on device")

  monkeypatch.setattr(regions.os, "replace", replace)
  with pytest.raises(OSError, match="No space"):
    regions.make_array(tmp_path / workdir.BOXES, path)
  assert path.read_bytes() == before
  assert not list(tmp_path.glob("*.part"))


def test_coco_takes_the_boxes_as_results(tmp_path):
  coco = pytest.importorskip("pycocotools.coco")
  _write(tmp_path, range(3))
  categories = json.loads((tmp_path / workdir.BOX_CATEGORIES).read_text())
  assert categories == [
    {"id": 1, "name": "person"},
    {"id": 2, "name": "car"},
    {"id": 3, "name": "dog"},
  ]
  with contextlib.redirect_stdout(io.StringIO()):
    truth = coco.COCO()
    truth.dataset = {
      "images": [{"id": t, "height": 30, "width": 40} for t in range(3)],
      "categories": categories,
      "annotations": [],
    }
    truth.createIndex()
    results = truth.loadRes(str(tmp_path / workdir.BOX_LIST))
  for t in range(3):
    found = results.loadAnns(results.getAnnIds(imgIds=[t]))
    expected = regions.detections(t, _noise(t))
    assert [x["bbox"] for x in found] == [x["bbox"] for x in expected]
    assert [x["category_id"] for x in found] == [
      x["category_id"] for x in expected
    ]


def test_areas_are_shares_that_add_up(tmp_path):
  classes = np.zeros((10, 20), np.uint8)
  classes[:5, :8] = 1
  classes[9, :] = 3
  (sink,) = sinks.open_sinks(tmp_path, 10.0, NAMES, areas=True, size=(50, 100))
  sink.put(_record(0, classes))
  sink.put(_record(3, classes * 0))
  sink.close()
  lines = (tmp_path / workdir.AREAS).read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {
      "t": 0,
      "seconds": 0.0,
      "areas": {"background": 0.7, "person": 0.2, "car": 0.0, "dog": 0.1},
    },
    {
      "t": 3,
      "seconds": 0.3,
      "areas": {"background": 1.0, "person": 0.0, "car": 0.0, "dog": 0.0},
    },
  ]
