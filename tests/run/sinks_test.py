"""What a run writes frame by frame: read back, gone on with, on a full disk."""

import errno
import itertools
import json
import resource
import subprocess
import sys
import textwrap

import av
import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.formats import class_maps
from ojd.run import masks, palette, sinks, workdir, writers
from tests import binaries
from tests.reference import frame_records

NAMES = ("background", "person", "car")
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
  masks.MaskFiles(tmp_path, NAMES).write(_record(1))
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
def test_gone_on_with_is_as_if_nothing_had_been(tmp_path, kind):
  wanted = EVERYTHING | {"masks": kind}
  times = [t for t in range(30) if t not in (5, 12)]
  _write(tmp_path / "whole", times, **wanted)
  parts = tmp_path / "parts"
  # Killed after frame 13, with a checkpoint after 7.
  _write(parts, times[:12], cuts=(3, 7), close=False, **wanted)
  with (parts / workdir.BOXES).open("a") as file:
    file.write('{"image_id": 13, "cate')
  _write(parts, times[7:], start=8, cuts=(20,), **wanted)
  whole, gone_on = _all_files(tmp_path / "whole"), _all_files(parts)
  assert whole.keys() == gone_on.keys()
  for name, content in whole.items():
    if name == workdir.OVERLAY:
      np.testing.assert_allclose(content, gone_on[name], atol=2e-3)
    else:
      assert content == gone_on[name], name
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


# A disk that is full: an image file, a video and lines, each in its own way.


def _no_room(*args, **kwargs):
  raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_leaves_whole_pictures(tmp_path, monkeypatch):
  files = masks.MaskFiles(tmp_path, NAMES)
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


def test_failure_to_write_comes_before_one_of_closing():
  def write(record):
    raise OSError(errno.ENOSPC, "No space left on device")

  def close():
    raise ValueError("nothing to join")

  sink = writers.Background(write, close=close)
  sink.put(0)
  with pytest.raises(OSError, match="No space"):
    sink.close()


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
  from ojd.run import overlay, sinks, writers

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
      sink.put(writers.FrameRecord(t, frame, classes, classes, caption))
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
