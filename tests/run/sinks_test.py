"""What a run writes frame by frame: read back, resumed, on a full disk."""

import contextlib
import errno
import io
import itertools
import json
import resource
import subprocess
import sys
import textwrap

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.formats import class_maps
from ojd.run import overlay, palette, sinks, workdir
from tests import binaries
from tests.reference import frame_records

NAMES = ("background", "person", "car")
FOUR = (*NAMES, "dog")
SIZE = (77, 101)  # odd, and no multiple of the student's
EVERYTHING = {"video": True, "masks": "video", "boxes": True, "areas": True}


def _classes(t, height=23, width=33):  # odd: no centre lies on an edge
  classes = np.zeros((height, width), np.uint8)
  classes[4:15, 2 + t % 9 : 15 + t % 9] = 1
  classes[12:20, 20:30] = 2 * (t % 3 > 0)
  return classes


def _record(t, classes=None):
  classes = _classes(t) if classes is None else classes
  return frame_records.make(t, classes)


def _write(path, times, start=0, cuts=(), fps=25.0, close=True, **wanted):
  path.mkdir(exist_ok=True)
  opened = sinks.open_sinks(path, fps, NAMES, size=SIZE, start=start, **wanted)
  for t in times:
    for sink in opened:
      sink.put(_record(t))
    if t in cuts:
      for wait in [sink.cut() for sink in opened]:
        wait()
  for sink in opened:
    if close:
      sink.close()
    else:  # as a kill does, but not in the middle of a frame
      sink._queue.put(None)
      sink._thread.join()
  return opened


def _nearest(classes, size):
  """By hand: the pixel in which the centre of the new one lies."""
  rows, columns = (
    [(2 * i + 1) * old // (2 * new) for i in range(new)]
    for old, new in zip(classes.shape, size, strict=True)
  )
  return classes[rows][:, columns]


@pytest.mark.parametrize("kind", ["png", "video"])
@pytest.mark.parametrize("size", [(77, 101), (46, 66), (11, 17), (23, 33)])
def test_masks_come_back_at_the_size_of_the_source(tmp_path, kind, size):
  opened = sinks.open_sinks(tmp_path, 25.0, NAMES, masks=kind, size=size)
  for t in range(3):
    opened[0].put(_record(t))
  opened[0].close()
  found = list(class_maps.read_masks(tmp_path))
  assert [t for t, _ in found] == [0, 1, 2]
  for t, classes in found:
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, _nearest(_classes(t), size))


@pytest.mark.parametrize("kind", ["png", "video"])
def test_every_class_there_can_be_is_kept(tmp_path, kind):
  names = tuple(f"class {i}" for i in range(255))
  classes = np.random.default_rng(0).integers(0, 255, (37, 41)).astype(np.uint8)
  (sink,) = sinks.open_sinks(tmp_path, 25.0, names, masks=kind)
  sink.put(_record(0, classes))
  sink.close()
  ((_, found),) = class_maps.read_masks(tmp_path)
  np.testing.assert_array_equal(found, classes)


@pytest.mark.parametrize("kind", ["png", "video"])
@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 240.0, 5000.0, 0.2])
def test_masks_know_their_frames_though_some_are_missing(tmp_path, kind, fps):
  times = [3, 4, 9, 10, 11, 150, 151, 99_999, 100_000]
  _write(tmp_path, times, cuts=(4, 10, 150), fps=fps, masks=kind)
  found = list(class_maps.read_masks(tmp_path))
  assert [t for t, _ in found] == times
  for t, classes in found:
    np.testing.assert_array_equal(classes, _nearest(_classes(t), SIZE))


def test_mask_video_is_one_lossless_file_that_others_read(tmp_path):
  _write(tmp_path, range(6), masks="video")
  with av.open(tmp_path / workdir.MASK_VIDEO) as video:
    stream = video.streams.video[0]
    assert stream.codec_context.name == "ffv1"
    assert stream.codec_context.pix_fmt == "gray"
    frames = [x.to_ndarray(format="gray") for x in video.decode(stream)]
    times = [float(x) for x in np.arange(6) / 25]
  with av.open(tmp_path / workdir.MASK_VIDEO) as video:
    assert [x.time for x in video.decode(video=0)] == pytest.approx(times)
  np.testing.assert_array_equal(frames[5], _nearest(_classes(5), SIZE))


@pytest.mark.parametrize("kind", ["png", "video"])
def test_legend_names_the_classes_in_the_colours_of_the_overlay(tmp_path, kind):
  _write(tmp_path, range(1), masks=kind)
  content = json.loads((tmp_path / "masks" / "classes.json").read_text())
  colors = palette.colors(3).tolist()
  assert content["classes"] == [
    {"id": i, "name": NAMES[i], "color": colors[i]} for i in range(3)
  ]
  legend = class_maps.read_legend(tmp_path)
  assert legend.names == NAMES and list(map(list, legend.colors)) == colors


def test_png_shows_the_colours(tmp_path):
  sinks.MaskFiles(tmp_path, NAMES).write(_record(1))
  image = Image.open(tmp_path / "masks" / "000001.png").convert("RGB")
  np.testing.assert_array_equal(
    np.asarray(image), palette.colors(3)[_classes(1)]
  )


def _all_files(path):
  """The content of everything, videos by their pictures."""
  found = {}
  for file in path.rglob("*"):
    name = str(file.relative_to(path))
    if file.is_dir() or "_parts" in name:
      continue
    if file.suffix in (".mp4", ".mkv"):
      with av.open(file) as video:
        times = [x.time for x in video.decode(video=0)]
      found[name] = times
    else:
      found[name] = file.read_bytes()
  return found


# Who is killed closes nothing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["png", "video"])
def test_a_resumed_run_writes_the_same_files(tmp_path, kind):
  wanted = EVERYTHING | {"masks": kind}
  times = [t for t in range(30) if t not in (5, 12)]
  _write(tmp_path / "whole", times, **wanted)
  parts = tmp_path / "parts"
  # Killed after frame 13, with a checkpoint after 7.
  _write(parts, times[:12], cuts=(3, 7), close=False, **wanted)
  with (parts / workdir.BOXES).open("a") as file:
    file.write('{"image_id": 13, "cate')
  _write(parts, times[7:], start=8, cuts=(20,), **wanted)
  whole, resumed = _all_files(tmp_path / "whole"), _all_files(parts)
  assert whole.keys() == resumed.keys()
  for name, content in whole.items():
    if name == workdir.OVERLAY:
      np.testing.assert_allclose(content, resumed[name], atol=2e-3)
    else:
      assert content == resumed[name], name
  one, other = (
    list(class_maps.read_masks(tmp_path / x)) for x in ("whole", "parts")
  )
  assert [t for t, _ in one] == [t for t, _ in other] == times
  for (_, a), (_, b) in zip(one, other, strict=True):
    np.testing.assert_array_equal(a, b)


def test_folder_without_masks_is_refused(tmp_path):
  with pytest.raises(UserError, match="--save_masks"):
    class_maps.read_masks(tmp_path)
  _write(tmp_path, range(2), masks="video")
  video = tmp_path / workdir.MASK_VIDEO
  whole = video.read_bytes()
  video.write_bytes(whole[:50])
  with pytest.raises(UserError, match="cannot be read"):
    list(class_maps.read_masks(tmp_path))
  video.unlink()
  with pytest.raises(UserError, match="no whole masks.mkv"):
    class_maps.read_masks(tmp_path)
  legend = tmp_path / "masks" / "classes.json"
  for text in ("", "[]", "{}", '{"fps": 25, "classes": [{"id": 0}]}'):
    legend.write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
      class_maps.read_masks(tmp_path)


def test_torn_png_is_named(tmp_path):
  _write(tmp_path, range(2), masks="png")
  file = tmp_path / "masks" / "000001.png"
  file.write_bytes(file.read_bytes()[:-30])
  with pytest.raises(UserError, match="000001.png"):
    list(class_maps.read_masks(tmp_path))


# Overlays.


def _shown(t, height=48, width=64):
  classes = np.zeros((height, width), np.uint8)
  classes[8:30, 10 + t % 20 : 30 + t % 20] = 1 + t % 2
  return frame_records.make(t, classes)


def test_overlay_video_plays_with_every_frame(tmp_path):
  path = tmp_path / "overlay.mp4"
  video = sinks.OverlayVideo(tmp_path, 25.0, NAMES)
  for t in range(12):
    video.write(_shown(t))
  video.close()
  with av.open(str(path)) as file:
    stream = file.streams.video[0]
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert float(stream.average_rate) == 25.0
    frames = [f.to_ndarray(format="rgb24") for f in file.decode(stream)]
  assert len(frames) == 12
  painted = overlay.paint(_shown(3), NAMES)
  assert frames[3].shape == painted.shape
  difference = np.abs(frames[3].astype(int) - painted.astype(int))
  assert difference.mean() < 12  # lossy, but this picture


@pytest.mark.parametrize("size", [(32, 3000), (5000, 32)])
def test_overlay_is_never_larger_than_players_show(tmp_path, size):
  path = tmp_path / "overlay.mp4"
  video = sinks.OverlayVideo(tmp_path, 25.0, NAMES)
  video.write(_shown(0, *size))
  video.close()
  with av.open(str(path)) as file:
    (frame,) = file.decode(video=0)
  assert max(frame.height, frame.width) in (4094, 4096)


def _pictures(path):
  with av.open(str(path)) as file:
    return [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001])
def test_resumed_overlay_shows_every_frame_once(tmp_path, fps):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  whole.mkdir(), parts.mkdir()
  video = sinks.OverlayVideo(whole, fps, NAMES)
  for t in range(20):
    video.write(_shown(t))
  video.close()
  video = sinks.OverlayVideo(parts, fps, NAMES)
  for t in range(11):  # killed amid its second part
    video.write(_shown(t))
    if t == 7:
      video.cut()
  video = sinks.OverlayVideo(parts, fps, NAMES, start=8)
  for t in range(8, 20):
    video.write(_shown(t))
    if t == 14:
      video.cut()
  video.close()
  one, other = (_pictures(x / workdir.OVERLAY) for x in (whole, parts))
  assert len(one) == len(other) == 20
  for a, b in zip(one, other, strict=True):
    assert np.abs(a.astype(int) - b.astype(int)).mean() < 8
  with av.open(str(parts / workdir.OVERLAY)) as file:
    times = [float(frame.time) for frame in file.decode(video=0)]
  np.testing.assert_allclose(times, np.arange(20) / fps, atol=2e-3)


@pytest.mark.parametrize("start", [0, 9, 13, 55])
def test_resumed_sample_frames_are_the_same(tmp_path, start):
  images = _shown(0, 32, 32)
  names = []
  for folder, begin in ((tmp_path / "whole", 0), (tmp_path / "parts", start)):
    samples = sinks.SampleFrames(folder, NAMES)
    for t in range(begin + 3 if begin else 100):
      samples.write(frame_records.at(images, t))
    samples = sinks.SampleFrames(folder, NAMES, start) if begin else samples
    for t in range(begin, 100 if begin else 0):
      samples.write(frame_records.at(images, t))
    if begin or folder.name == "whole":
      names.append(sorted(p.name for p in folder.iterdir()))
  assert names[0] == names[-1]


@pytest.mark.parametrize("num_frames", [1, 13, 100, 777])
def test_sample_frames_stay_few_and_spread(tmp_path, num_frames):
  samples = sinks.SampleFrames(tmp_path / "frames", NAMES)
  images = _shown(0, 32, 32)
  for t in range(num_frames):
    samples.write(frame_records.at(images, t))
  kept = sorted(int(p.stem) for p in (tmp_path / "frames").iterdir())
  assert 1 <= len(kept) <= 12
  if num_frames >= 13:
    assert len(kept) >= 6
    steps = set(np.diff(kept).tolist())
    assert len(steps) == 1
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
  (found,) = sinks.detections(0, classes)
  assert found["bbox"] == [0, 0, 5, 1] and found["area"] == 5


def test_boxes_are_in_pixels_of_the_source(tmp_path):
  (sink,) = sinks.open_sinks(tmp_path, 10.0, FOUR, boxes=True, size=(96, 128))
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


def _write_boxes(path, times, start=0):
  (sink,) = sinks.open_sinks(path, 10.0, FOUR, boxes=True, start=start)
  for t in times:
    sink.put(_record(t, _noise(t)))
  sink.close()


def test_run_without_objects_leaves_an_empty_array(tmp_path):
  (sink,) = sinks.open_sinks(tmp_path, 10.0, FOUR, boxes=True)
  sink.put(_record(0, np.zeros((32, 32), np.uint8)))
  sink.close()
  assert json.loads((tmp_path / workdir.BOX_LIST).read_text()) == []


def test_array_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
  _write_boxes(tmp_path, range(2))
  path = tmp_path / workdir.BOX_LIST
  before = path.read_bytes()

  def replace(*args):
    raise OSError("No space left on device")

  monkeypatch.setattr(sinks.os, "replace", replace)
  with pytest.raises(OSError, match="No space"):
    sinks._make_array(tmp_path / workdir.BOXES, path)
  assert path.read_bytes() == before
  assert not list(tmp_path.glob("*.part"))


def test_coco_takes_the_boxes_as_results(tmp_path):
  coco = pytest.importorskip("pycocotools.coco")
  _write_boxes(tmp_path, range(3))
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
    expected = sinks.detections(t, _noise(t))
    assert [x["bbox"] for x in found] == [x["bbox"] for x in expected]
    assert [x["category_id"] for x in found] == [
      x["category_id"] for x in expected
    ]


def test_areas_are_shares_that_add_up(tmp_path):
  classes = np.zeros((10, 20), np.uint8)
  classes[:5, :8] = 1
  classes[9, :] = 3
  (sink,) = sinks.open_sinks(tmp_path, 10.0, FOUR, areas=True, size=(50, 100))
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
      "seconds": 0.12,
      "areas": {"background": 1.0, "person": 0.0, "car": 0.0, "dog": 0.0},
    },
  ]


# A disk that is full: an image file, a video and lines, each in its own way.


def _no_room(*args, **kwargs):
  raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_leaves_whole_pictures(tmp_path, monkeypatch):
  files = sinks.MaskFiles(tmp_path, NAMES)
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


_LIMITED = """
  import resource, signal, sys, pathlib
  sys.path.insert(0, {root!r})
  from tests.run import sinks_test as t
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  path = pathlib.Path({path!r})
  {body}
"""


def _run_limited(path, body):
  """Runs a few lines in another process; returns what it printed."""
  code = textwrap.dedent(_LIMITED).format(
    root=str(binaries.ROOT), path=str(path), body=body
  )
  result = subprocess.run(
    [sys.executable, "-W", "error", "-c", code],
    capture_output=True,
    text=True,
    timeout=60,
    cwd=binaries.ROOT,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


def fill_up(path, limit, **wanted):
  """Writes noise until a file may not grow; returns the sinks' errors."""
  path.mkdir()
  opened = sinks.open_sinks(path, 25.0, NAMES, **wanted)
  rng = np.random.default_rng(0)
  errors = []

  def try_to(act, *args):
    try:
      act(*args)
    except OSError as error:
      errors.append(error.errno)

  for t in range(60):
    if t == 20:
      for sink in opened:
        sink.cut()()
      resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    noise = rng.integers(0, 3, (64, 64)).astype(np.uint8)
    for sink in opened:
      try_to(sink.put, _record(t, noise))
  for sink in opened:
    try_to(sink.close)
  return errors


@pytest.mark.parametrize(
  "wanted, limit",
  [
    ({"video": True}, 8_000),
    ({"masks": "video"}, 26_000),
    ({"boxes": True}, 3_000),
    ({"areas": True}, 3_000),
  ],
)
def test_full_disk_ends_the_run_and_spoils_nothing(tmp_path, wanted, limit):
  path = tmp_path / "run"
  body = f"print(t.fill_up(path, {limit}, **{wanted!r}))"
  assert str(errno.EFBIG) in _run_limited(path, body)
  for name in (workdir.OVERLAY_PARTS, workdir.MASK_PARTS):
    for part in (path / name).glob("*"):
      with av.open(part) as video:
        assert sum(1 for _ in video.decode(video=0)) == 20
  for file in path.glob("*.jsonl"):
    lines = file.read_text().splitlines()
    assert lines and all(isinstance(json.loads(x), dict) for x in lines)
  assert not [x for x in path.rglob("*") if ".part" in x.name]
  # With room again it goes on from what was whole.
  opened = sinks.open_sinks(path, 25.0, NAMES, start=20, **wanted)
  for t, sink in itertools.product(range(20, 23), opened):
    sink.put(_record(t, np.ones((64, 64), np.uint8)))
  for sink in opened:
    sink.close()
  if "areas" in wanted:
    lines = (path / workdir.AREAS).read_text().splitlines()
    assert [json.loads(x)["t"] for x in lines] == list(range(23))
  if "masks" in wanted:
    times = [t for t, _ in class_maps.read_masks(path)]
    assert times == list(range(23))


def test_incomplete_join_replaces_nothing(tmp_path):
  path = tmp_path / "run"
  _write(path, range(12), masks="video", video=True)
  before = {
    name: (path / name).read_bytes()
    for name in (workdir.OVERLAY, workdir.MASK_VIDEO)
  }
  limit = min(map(len, before.values()))
  body = f"t.join_again(path, {limit})"
  _run_limited(path, body)
  for name, content in before.items():
    assert (path / name).read_bytes() == content
  assert not [x for x in path.rglob("*") if ".part" in x.name]


def join_again(path, limit):
  """Opens and closes the videos of a run where there is no room."""
  opened = sinks.open_sinks(
    path, 25.0, NAMES, masks="video", video=True, start=12
  )
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit - 1, limit - 1))
  num_errors = 0
  for sink in opened:
    try:
      sink.close()
    except OSError:
      num_errors += 1
  assert num_errors == 2, num_errors


# Memory.

_MEMORY = """
  import pathlib, sys
  sys.path.insert(0, {root!r})
  import numpy as np
  from ojd.run import overlay, sinks

  def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = [x for x in lines if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024

  path = pathlib.Path({path!r})
  names = ("background", "person", "car")
  opened = sinks.open_sinks(
    path, 25.0, names, video=True, masks="video", boxes=True, areas=True
  )
  opened += sinks.open_sinks(path, 25.0, names, masks="png")
  for t in range(3000):
    classes = np.zeros((64, 96), np.uint8)
    classes[20:40, t % 60 : t % 60 + 30] = 1 + t % 2
    frame = np.full((64, 96, 3), t % 256, np.uint8)
    caption = overlay.Caption(t, False, 0, 8, 0.5, "truth", t / 25)
    for sink in opened:
      sink.put(overlay.FrameImages(frame, classes, classes, caption))
    if t % 250 == 249:
      for wait in [sink.cut() for sink in opened]:
        wait()
    if t == 499:
      early = peak()
  for sink in opened:
    sink.close()
  assert not {{"jax", "torch"}} & set(sys.modules)
  print(peak() - early)
"""


@pytest.mark.slow  # thousands of frames
def test_memory_does_not_grow_with_the_stream(tmp_path):
  code = textwrap.dedent(_MEMORY).format(
    root=str(binaries.ROOT), path=str(tmp_path)
  )
  result = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    timeout=120,
    cwd=binaries.ROOT,
  )
  assert result.returncode == 0, result.stderr
  # 2,500 class maps alone are 14.6 MiB, with the frames 59.
  assert float(result.stdout) < 10, result.stdout
