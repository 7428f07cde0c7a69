"""What a run writes frame by frame: read back, resumed, on a full disk."""

import contextlib
import errno
import io
import json
import os
import pathlib
import resource
import subprocess
import sys
import types

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.formats import class_maps, palette
from ojd.run import overlay, sinks, workdir
from tests import binaries

NAMES = ("background", "person", "car")
FOUR = (*NAMES, "dog")
SIZE = (77, 101)  # odd, and no multiple of the student's
EVERYTHING = {
  **{"overlay": True, "save_masks": "video", "boxes": True, "areas": True}
}


def _classes(t, height=23, width=33):  # odd: no centre lies on an edge
  classes = np.zeros((height, width), np.uint8)
  classes[4:15, 2 + t % 9 : 15 + t % 9] = 1
  classes[12:20, 20:30] = 2 * (t % 3 > 0)
  return classes


def _record(t, classes=None):
  """Frame t in one colour, on which the student answered `classes`."""
  classes = _classes(t) if classes is None else classes
  frame = np.full((*classes.shape, 3), (40, 90, 140), np.uint8)
  caption = overlay.Caption(t, t % 8 == 0, 3, 8, 0.5, "truth", t / 25)
  return overlay.FrameImages(frame, classes, classes, caption)


def _open(path, fps=25.0, names=NAMES, size=None, start=0, **wanted):
  """The sinks of a run with these flags."""
  nothing = {"overlay": False, "save_masks": "none"}
  nothing |= {"boxes": False, "areas": False}
  place = sinks.Place(path, fps, names, size, start)
  return sinks.open_sinks(place, types.SimpleNamespace(**(nothing | wanted)))


def _write(
  path,
  times,
  names=NAMES,
  fps=25.0,
  classes=_classes,
  cuts=(),
  is_killed=False,
  **wanted,
):
  path.mkdir(exist_ok=True)
  opened = _open(path, fps, names, **wanted)
  for t in times:
    for sink in opened:
      sink.put(_record(t, classes(t)))
    if t in cuts:
      for wait in [sink.cut() for sink in opened]:
        wait()
  for sink in opened:
    if is_killed:  # but not in the middle of a frame
      sink._queue.put(None)
      sink._thread.join()
    else:
      sink.close()


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def _video(path):
  """The coding, the pictures and the times of a video."""
  with av.open(path) as video:
    stream = video.streams.video[0]
    context, rate = stream.codec_context, float(stream.average_rate)
    kind = "gray" if path.suffix == ".mkv" else "rgb24"
    found = [(x.to_ndarray(format=kind), x.time) for x in video.decode(stream)]
    about = (context.name, context.pix_fmt, rate)
    return about, *zip(*found, strict=True)


def _nearest(classes, size):
  """By hand: the pixel in which the centre of the new one lies."""
  rows, columns = (
    [(2 * i + 1) * old // (2 * new) for i in range(new)]
    for old, new in zip(classes.shape, size, strict=True)
  )
  return classes[rows][:, columns]


@pytest.mark.parametrize("kind", ["png", "video"])
@pytest.mark.parametrize(
  "size,fps",
  [
    *((SIZE, 25.0), ((46, 66), 30000 / 1001), ((11, 17), 240.0)),
    *(((23, 33), 5000.0), (SIZE, 0.2)),
  ],
)
def test_masks_know_their_frames_and_have_the_size_of_the_source(
  tmp_path, kind, size, fps
):
  times = [3, 4, 9, 10, 11, 150, 151, 99_999, 100_000]
  cuts = (4, 10, 150)
  _write(tmp_path, times, cuts=cuts, fps=fps, size=size, save_masks=kind)
  found = list(class_maps.read_masks(tmp_path))
  assert [t for t, _ in found] == times
  for t, classes in found:
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, _nearest(_classes(t), size))


@pytest.mark.parametrize("kind", ["png", "video"])
def test_every_class_there_can_be_is_kept(tmp_path, kind):
  names = tuple(f"class {i}" for i in range(255))
  classes = np.random.default_rng(0).integers(0, 255, (37, 41)).astype(np.uint8)
  _write(tmp_path, [0], names, classes=lambda t: classes, save_masks=kind)
  ((_, found),) = class_maps.read_masks(tmp_path)
  np.testing.assert_array_equal(found, classes)


def test_mask_video_is_one_lossless_file_that_others_read(tmp_path):
  _write(tmp_path, range(6), size=SIZE, save_masks="video")
  about, frames, times = _video(tmp_path / workdir.MASK_VIDEO)
  assert about[:2] == ("ffv1", "gray")
  np.testing.assert_allclose(times, np.arange(6) / 25)
  np.testing.assert_array_equal(frames[5], _nearest(_classes(5), SIZE))


@pytest.mark.parametrize("kind", ["png", "video"])
def test_classes_have_the_colours_of_the_overlay(tmp_path, kind):
  _write(tmp_path, [1], save_masks=kind)
  content = json.loads((tmp_path / "masks" / "classes.json").read_text())
  colors = palette.colors(3)
  assert content["classes"] == [
    {"id": i, "name": NAMES[i], "color": colors[i].tolist()} for i in range(3)
  ]
  legend = class_maps.read_legend(tmp_path)
  assert legend.names == NAMES
  assert list(map(list, legend.colors)) == colors.tolist()
  if kind == "png":
    image = Image.open(tmp_path / "masks" / "000001.png").convert("RGB")
    np.testing.assert_array_equal(np.asarray(image), colors[_classes(1)])


def _difference(picture, other):
  return np.abs(picture.astype(int) - other).mean()


def _all_files(path):
  """The content of everything but the videos."""
  return {
    str(file.relative_to(path)): file.read_bytes()
    for file in path.rglob("*")
    if file.suffix not in (".mp4", ".mkv") and file.is_file()
  }


# Who is killed closes nothing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
  "kind,fps", [("png", 25.0), ("video", 25.0), ("video", 30000 / 1001)]
)
def test_a_resumed_run_writes_the_same_files(tmp_path, kind, fps):
  wanted = EVERYTHING | {"save_masks": kind, "size": SIZE, "fps": fps}
  times = [t for t in range(30) if t not in (5, 12)]
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  _write(whole, times, **wanted)
  # Killed after frame 13, with a checkpoint after 7.
  _write(parts, times[:12], cuts=(3, 7), is_killed=True, **wanted)
  with (parts / workdir.BOXES).open("a") as file:
    file.write('{"image_id": 13, "cate')
  _write(parts, times[7:], start=8, cuts=(20,), **wanted)
  assert _all_files(whole) == _all_files(parts)
  for path in (whole, parts):
    found = list(class_maps.read_masks(path))
    assert [t for t, _ in found] == times
    for t, classes in found:
      np.testing.assert_array_equal(classes, _nearest(_classes(t), SIZE))
  shown = [_video(path / workdir.OVERLAY) for path in (whole, parts)]
  for about, frames, seconds in shown:  # every frame once
    assert about == ("h264", "yuv420p", pytest.approx(fps, rel=1e-3))
    assert len(frames) == len(times)
    np.testing.assert_allclose(seconds, np.arange(28) / fps, atol=2e-3)
    # Lossy, but this picture.
    assert _difference(frames[3], overlay.paint(_record(3), NAMES)) < 12
  for a, b in zip(shown[0][1], shown[1][1], strict=True):
    assert _difference(a, b) < 8


def test_folder_without_masks_is_refused(tmp_path):
  def refuses(words):
    with pytest.raises(UserError, match=words):
      list(class_maps.read_masks(tmp_path))

  refuses("--save_masks")
  _write(tmp_path, range(2), save_masks="png")
  file = tmp_path / "masks" / "000001.png"
  file.write_bytes(file.read_bytes()[:-30])
  refuses("000001.png")
  video = tmp_path / workdir.MASK_VIDEO
  _write(tmp_path, range(2), save_masks="video")
  video.write_bytes(video.read_bytes()[:50])
  refuses("cannot be read")
  file.unlink()
  (tmp_path / "masks" / "000000.png").unlink()
  video.unlink()
  refuses("no whole masks.mkv")
  for text in ("", "[]", "{}", '{"fps": 25, "classes": [{"id": 0}]}'):
    (tmp_path / "masks" / "classes.json").write_text(text)
    refuses("cannot be read")


@pytest.mark.parametrize("size", [(32, 3000), (5000, 32)])
def test_overlay_is_never_larger_than_players_show(tmp_path, size):
  _write(tmp_path, [0], classes=lambda t: _classes(t, *size), overlay=True)
  _, (frame,), _ = _video(tmp_path / workdir.OVERLAY)
  assert max(frame.shape) in (4094, 4096)


def _keep_samples(path, *spans):
  """The numbers of the sample frames of a run in so many parts."""
  for start, end in spans:
    samples = sinks.SampleFrames(sinks.Place(path, 25.0, NAMES, start=start))
    for t in range(start, end):
      samples.write(_record(t))
  pictures = (path / workdir.REPORT / "frames").iterdir()
  return sorted(int(picture.stem) for picture in pictures)


@pytest.mark.parametrize("start", [9, 13, 55])
def test_resumed_sample_frames_are_the_same(tmp_path, start):
  parts = _keep_samples(tmp_path / "parts", (0, start + 3), (start, 100))
  assert parts == _keep_samples(tmp_path / "whole", (0, 100))


@pytest.mark.parametrize("num_frames", [1, 13, 100, 777])
def test_sample_frames_stay_few_and_spread(tmp_path, num_frames):
  kept = _keep_samples(tmp_path / "frames", (0, num_frames))
  assert 1 <= len(kept) <= 12
  if num_frames >= 13:
    assert len(kept) >= 6
    assert len(set(np.diff(kept).tolist())) == 1
    assert any(t % 8 for t in kept)  # not key frames only


# Boxes and areas, against OpenCV's components and COCO's own reader.


def _noise(seed, height=30, width=40):
  """Blobs that touch at corners and at the edges."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 4, (height // 2, width // 2)).astype(np.uint8)
  coarse[rng.random(coarse.shape) < 0.5] = 0
  return np.repeat(np.repeat(coarse, 2, 0), 2, 1)


def _components(classes):
  """(class, [x, y, w, h], area) of each component, by OpenCV."""
  found = []
  for label in set(np.unique(classes).tolist()) - {0}:
    image = (classes == label).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=8)
    found += [(label, box, area) for *box, area in stats[1:].tolist()]
  return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [0.0, 0.005, 0.02])
def test_detections_are_those_of_opencv(seed, least, monkeypatch):
  monkeypatch.setattr(sinks, "MIN_AREA", least)
  classes = _noise(seed)
  found = sinks.detections(7, classes)
  expected = [x for x in _components(classes) if x[2] >= least * classes.size]
  places = [(x["category_id"], x["bbox"], x["area"]) for x in found]
  assert sorted(places) == sorted(expected)
  assert {x["image_id"] for x in found} <= {7}
  assert {x["score"] for x in found} <= {1.0}


def test_boxes_are_in_pixels_of_the_source(tmp_path):
  classes = np.zeros((48, 64), np.uint8)
  more = {"names": FOUR, "size": (96, 128), "boxes": True}
  _write(tmp_path, [3], classes=lambda t: classes, **more)
  assert json.loads((tmp_path / workdir.BOX_LIST).read_text()) == []
  classes[10:20, 5:25] = 3
  _write(tmp_path, [4], classes=lambda t: classes, **more)
  assert _lines(tmp_path / workdir.BOXES) == [
    {
      **{"image_id": 4, "category_id": 3, "bbox": [10, 20, 40, 20]},
      **{"score": 1.0, "area": 800},
    }
  ]


def test_array_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
  _write(tmp_path, range(2), boxes=True)
  path = tmp_path / workdir.BOX_LIST
  before = path.read_bytes()
  monkeypatch.setattr(os, "replace", _no_room)
  with pytest.raises(OSError, match="No space"):
    sinks._make_array(tmp_path / workdir.BOXES, path)
  assert path.read_bytes() == before
  assert not list(tmp_path.glob("*.part"))


def test_coco_takes_the_boxes_as_results(tmp_path):
  coco = pytest.importorskip("pycocotools.coco")
  _write(tmp_path, range(3), FOUR, classes=_noise, boxes=True)
  categories = json.loads((tmp_path / workdir.BOX_CATEGORIES).read_text())
  assert categories == [
    {"id": i, "name": name} for i, name in enumerate(FOUR) if i
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
    expected = sinks.detections(t, _noise(t))
    for name in ("bbox", "category_id"):
      assert [x[name] for x in found] == [x[name] for x in expected]


def test_areas_are_shares_that_add_up(tmp_path):
  classes = np.zeros((4, 10, 20), np.uint8)
  classes[0, :5, :8] = 1
  classes[0, 9, :] = 3
  more = {"size": (50, 100), "areas": True}
  _write(tmp_path, [0, 3], FOUR, classes=classes.__getitem__, **more)
  shares = ((0.7, 0.2, 0.0, 0.1), (1.0, 0.0, 0.0, 0.0))
  assert _lines(tmp_path / workdir.AREAS) == [
    {"t": t, "seconds": t / 25, "areas": dict(zip(FOUR, x, strict=True))}
    for t, x in zip((0, 3), shares, strict=True)
  ]


# A disk that is full: an image file, a video and lines, each in its own way.


def _no_room(*args, **kwargs):
  raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_leaves_whole_pictures(tmp_path, monkeypatch):
  files = sinks.MaskFiles(sinks.Place(tmp_path, 25.0, NAMES))
  files.write(_record(0))
  save = Image.Image.save

  def torn(image, path, **options):
    save(image, path, **options)
    path.write_bytes(path.read_bytes()[:20])
    _no_room()

  monkeypatch.setattr(Image.Image, "save", torn)
  with pytest.raises(OSError, match="No space"):
    files.write(_record(1))
  assert [t for t, _ in class_maps.read_masks(tmp_path)] == [0]


@contextlib.contextmanager
def _limited(num_bytes):
  """No file may be larger."""
  unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, unlimited[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def _error_of(act, *args):
  try:
    act(*args)
  except OSError as error:
    return error.errno


@pytest.mark.parametrize(
  "wanted,limit",
  [
    *(({"overlay": True}, 8_000), ({"save_masks": "video"}, 26_000)),
    *(({"boxes": True}, 3_000), ({"areas": True}, 3_000)),
  ],
)
def test_full_disk_ends_the_run_and_spoils_nothing(tmp_path, wanted, limit):
  opened, errors = _open(tmp_path, **wanted), []
  noise = np.random.default_rng(0).integers(0, 3, (60, 64, 64), np.uint8)
  with contextlib.ExitStack() as stack:
    for t, classes in enumerate(noise):
      if t == 20:
        for sink in opened:
          sink.cut()()
        stack.enter_context(_limited(limit))
      errors += [_error_of(x.put, _record(t, classes)) for x in opened]
    errors += [_error_of(sink.close) for sink in opened]
  assert errno.EFBIG in errors
  for name in (workdir.OVERLAY_PARTS, workdir.MASK_PARTS):
    for part in (tmp_path / name).glob("*"):
      assert len(_video(part)[1]) == 20
  for file in tmp_path.glob("*.jsonl"):
    lines = _lines(file)
    assert lines and all(isinstance(x, dict) for x in lines)
  assert not [x for x in tmp_path.rglob("*") if ".part" in x.name]
  # With room again it goes on from what was whole.
  ones = np.ones((64, 64), np.uint8)
  _write(tmp_path, range(20, 23), classes=lambda t: ones, start=20, **wanted)
  if "areas" in wanted:
    times = [x["t"] for x in _lines(tmp_path / workdir.AREAS)]
    assert times == list(range(23))
  if "save_masks" in wanted:
    times = [t for t, _ in class_maps.read_masks(tmp_path)]
    assert times == list(range(23))


def test_incomplete_join_replaces_nothing(tmp_path):
  _write(tmp_path, range(12), size=SIZE, save_masks="video", overlay=True)
  paths = [tmp_path / x for x in (workdir.OVERLAY, workdir.MASK_VIDEO)]
  before = [path.read_bytes() for path in paths]
  wanted = {"save_masks": "video", "overlay": True, "start": 12}
  opened = _open(tmp_path, **wanted)
  with _limited(min(map(len, before)) - 1):
    errors = [_error_of(sink.close) for sink in opened]
  assert [x for x in errors if x] == 2 * [errno.EFBIG]
  assert [path.read_bytes() for path in paths] == before
  assert not [x for x in tmp_path.rglob("*") if ".part" in x.name]


def print_growth(path):
  """By how many MiB the memory grows after the first of many frames."""

  def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = [x for x in lines if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024

  path = pathlib.Path(path)
  opened = _open(path, **EVERYTHING)
  opened += _open(path, save_masks="png")
  for t in range(3000):
    for sink in opened:
      sink.put(_record(t, _classes(t, 64, 96)))
    if t % 250 == 249:
      for wait in [sink.cut() for sink in opened]:
        wait()
    if t == 499:
      early = peak()
  for sink in opened:
    sink.close()
  assert not {"jax", "torch"} & set(sys.modules)
  print(peak() - early)


@pytest.mark.slow  # thousands of frames
def test_memory_does_not_grow_with_the_stream(tmp_path):
  code = "import sys; from tests.run import sinks_test as t; "
  code += "t.print_growth(sys.argv[1])"
  command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
  errors = subprocess.check_output(command, cwd=binaries.ROOT)
  # 2,500 class maps alone are 14.6 MiB, with the frames 59.
  assert float(errors) < 10
