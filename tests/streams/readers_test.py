"""What every reader of files keeps to, with whole files and with damaged ones.

A whole stream can be read from any frame, in any size. A damaged input is
refused in one line, or what is whole of it is played. A new reader is one row
of READERS.
"""

import faulthandler
import itertools
import json
import pathlib
import shutil
import signal
import warnings
from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.formats import lvs_labels
from ojd.streams import base
from ojd.types import Sample

H, W = 32, 40
NUM_FRAMES = 3
NUM_INPUTS = 200  # of each reader
SECONDS = 5.0  # for each input
MOST_SAMPLES = 1000  # a damaged head may promise more than the file holds
CHUNK = 25  # inputs from one to the next that begins with whole files


class Reader(NamedTuple):
  """A kind of stream, and how to make a small one."""

  name: str
  write: Callable[[pathlib.Path], None]  # a valid input into a folder
  uri: str  # of what is in {root}


def _frame(t):
  y, x = np.mgrid[:H, :W]
  planes = [7 * y + t, 6 * x, (x * y + 40 * t)]
  return (np.stack(planes, -1) % 256).astype(np.uint8)


def _mask(t):
  mask = np.zeros((H, W), np.uint8)
  mask[4 + t : 20, 6:30] = 255
  return mask


def _save(array, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def _write_folder(root):
  for t, suffix in enumerate(("png", "jpg", "png")):
    _save(_frame(t), root / "frames" / f"{t}.{suffix}")
    _save(_mask(t), root / "masks" / f"{t}.png")
  classes = {"0": "background", "255": "moving", "170": "ignore"}
  text = json.dumps({"fps": 25, "classes": classes})
  (root / "stream.json").write_text(text)


def _write_images(root):
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned upright
  image = Image.fromarray(_frame(0))
  image.save(root / "0.jpg", exif=exif)
  image.convert("RGBA").save(root / "1.png", exif=exif)
  image.quantize(16).save(root / "2.gif", save_all=True, append_images=[image])
  image.save(root / "3.tif", compression="tiff_lzw", exif=exif)
  image.save(root / "4.webp", exif=exif)
  image.save(root / "5.bmp")
  _save(_frame(0)[..., 0].astype(np.uint16) * 257, root / "6.png")


def _write_davis(root):
  for name in ("bear", "swan"):
    for t in range(2):
      _save(_frame(t), root / f"JPEGImages/480p/{name}/0000{t}.jpg")
      image = Image.frombytes("P", (W, H), (_mask(t) // 255 * 3).tobytes())
      image.putpalette(list(range(256)) * 3)
      path = root / f"Annotations/480p/{name}/0000{t}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      image.save(path)
  (root / "ImageSets/2017").mkdir(parents=True)
  (root / "ImageSets/2017/val.txt").write_text("bear\nswan\n")


def _write_cityscapes(root):
  for t in range(2):
    frames, labels = root / "leftImg8bit_sequence", root / "gtFine"
    name = f"val/ulm/ulm_000000_00000{t}"
    _save(_frame(t), frames / f"{name}_leftImg8bit.png")
    _save(_mask(t), labels / f"{name}_gtFine_labelIds.png")


def _write_video(path, num_frames=NUM_FRAMES):
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
    for t in range(num_frames):
      frame = av.VideoFrame.from_ndarray(_frame(t), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _write_lvs(root):
  boxes = np.array([[0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.9, 0.9]])
  masks = [np.full((28, 28), 0.9, np.float32) for _ in boxes]
  record = [boxes, [1, 3], np.array([0.9, 0.8], np.float32), masks]
  content = np.array({t: record for t in range(NUM_FRAMES)}, object)
  for i in range(2):
    chunk = f"driving100{i}"
    _write_video(root / f"{chunk}.mp4")
    path = root / f"{lvs_labels.PREFIX}{chunk}.npy"
    np.save(path, content, allow_pickle=True)


READERS = (
  Reader("folder", _write_folder, "folder:{root}"),
  Reader("images", _write_images, "images:{root}/**"),
  Reader("davis", _write_davis, "davis:{root}?objects=1"),
  Reader("cityscapes", _write_cityscapes, "cityscapes:{root}"),
  Reader("lvs", _write_lvs, "lvs:{root}"),
)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_any_frame_can_be_the_first(reader, tmp_path):
  reader.write(tmp_path)
  stream = base.open_stream(reader.uri.format(root=tmp_path))
  whole = list(stream.read())
  assert [sample.t for sample in whole] == list(range(stream.spec.num_frames))
  for start in range(len(whole) + 2):
    sought = list(stream.read(start))
    assert [sample.t for sample in sought] == list(range(len(whole)))[start:]
    for ours, expected in zip(sought, whole[start:], strict=True):
      np.testing.assert_array_equal(ours.frame, expected.frame)
      np.testing.assert_array_equal(ours.truth, expected.truth)
      assert ours.seconds == expected.seconds


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_identity_follows_the_content_and_not_the_place(reader, tmp_path):
  roots = tmp_path / "a", tmp_path / "b"
  roots[0].mkdir()
  reader.write(roots[0])
  shutil.copytree(*roots)
  first, second = (
    base.open_stream(reader.uri.format(root=root)).spec.identity
    for root in roots
  )
  assert first == second == json.loads(json.dumps(first))
  path = max(roots[1].rglob("*.[jpm][pn][g4]"))
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  changed = base.open_stream(reader.uri.format(root=roots[1]), H, W)
  assert changed.spec.identity != first


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.parametrize("size", [(2 * H, 50), (33, None)])
def test_size_asked_for_is_given(reader, tmp_path, size):
  reader.write(tmp_path)
  uri = reader.uri.format(root=tmp_path)
  spec = base.open_stream(uri, *size).spec
  assert (spec.height, spec.width) == (size[0], size[1] or spec.source_size[1])
  num_frames, num_broken = _play(uri, size)
  assert num_frames and not num_broken


# How an input is damaged.


def _flip(rng, data):
  data = bytearray(data)
  near = min(len(data), 64) if rng.random() < 0.5 else len(data)
  for _ in range(rng.integers(1, 5)):
    data[rng.integers(near)] = rng.integers(256)
  return bytes(data)


def _cut(rng, data):
  return data[: rng.integers(len(data))]


def _drop(rng, data):
  a, b = sorted(rng.integers(0, len(data), 2))
  return data[:a] + data[b:]


def _repeat(rng, data):
  a, b = sorted(rng.integers(0, len(data), 2))
  return data[:b] + data[a:]


_WORDS = (
  *("null", "-1", "1e999", "NaN", "[]", "{}", '"', "9" * 30, "0", "true"),
  *("\0", "\ud800", "../..", "/etc", "bear", "\n", "[" * 2000, "é", "a\x1bb"),
)


def _reword(rng, data):
  """A word in the place of another, where there are words."""
  words = data.decode("latin-1").split(" ")
  new = _WORDS[rng.integers(len(_WORDS))].encode("utf-8", "surrogatepass")
  words[rng.integers(len(words))] = new.decode("latin-1")
  return " ".join(words).encode("latin-1")


def _splash(rng, data):
  return rng.bytes(rng.integers(0, 200))


_DAMAGES = (_flip, _flip, _cut, _drop, _repeat, _reword, _splash)


def _damage(rng, root):
  """Changes one file; rarely it goes away, or another takes its place."""
  files = sorted(path for path in root.rglob("*") if path.is_file())
  path = files[rng.integers(len(files))]
  # Small files say what the others mean, so they get as many hits as the rest.
  texts = [file for file in files if file.suffix in (".json", ".txt")]
  if texts and rng.random() < 0.4:
    path = texts[rng.integers(len(texts))]
  what, data = rng.random(), path.read_bytes()
  if what < 0.03 and len(files) > 1:
    path.unlink()
  elif what < 0.06:
    path.write_bytes(files[rng.integers(len(files))].read_bytes())
  elif data:
    path.write_bytes(_DAMAGES[rng.integers(len(_DAMAGES))](rng, data))


# What may come out.


def _play(uri, size):
  """How many frames came, and how many of them broken; None if refused."""
  try:
    stream = base.open_stream(uri, *size)
    samples = itertools.islice(stream.read(), MOST_SAMPLES)
    broken = [
      _check(sample, t, stream.spec) for t, sample in enumerate(samples)
    ]
  except UserError as error:
    assert str(error) and "\n" not in str(error)
    assert len(str(error)) < 2000
    return None
  return len(broken), sum(broken)


def _check(sample, t, spec):
  """Whether a sample is broken; it is whole or says why not."""
  assert type(sample) is Sample and sample.t == t
  if sample.frame is None:
    assert sample.truth is None and sample.problem
    assert "\n" not in sample.problem
    return True
  assert sample.frame.shape == (spec.height, spec.width, 3)
  assert sample.frame.dtype == np.uint8
  # Of Cityscapes most frames have no labels.
  may_lack = spec.identity["kind"] == "cityscapes"
  if spec.class_names and not (may_lack and sample.truth is None):
    assert sample.truth.shape == (spec.height, spec.width)
    assert sample.truth.dtype == np.uint8
    seen = set(np.unique(sample.truth).tolist()) - {255}
    assert not seen or max(seen) < len(spec.class_names)
  else:
    assert sample.truth is None
  return False


class _TooLong(BaseException):
  """Not an Exception, which a reader may take for a broken file."""


@pytest.fixture
def alarm():
  """Ends a call that takes too long: alarm(seconds), alarm(0) when it is done.

  What is stuck outside of Python hears no signal, so that the process ends.
  """

  def ring(number, frame):
    raise _TooLong(f"more than {SECONDS} s")

  def set_alarm(seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if seconds:
      faulthandler.dump_traceback_later(10 * seconds, exit=True)

  before = signal.signal(signal.SIGALRM, ring)
  yield set_alarm
  set_alarm(0)
  faulthandler.cancel_dump_traceback_later()
  signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_inputs(reader, tmp_path, alarm):
  _feed(reader, tmp_path, alarm, NUM_INPUTS)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_many_damaged_inputs(reader, tmp_path, alarm):
  _feed(reader, tmp_path, alarm, 10 * NUM_INPUTS)


def _feed(reader, tmp_path, alarm, num_inputs):
  whole, root = tmp_path / "whole", tmp_path / "damaged"
  whole.mkdir()
  reader.write(whole)
  num_frames, num_broken = _play(reader.uri.format(root=whole), (None, None))
  assert num_frames and not num_broken

  rng = np.random.default_rng(0)
  outcomes = {"refused": 0, "whole": 0, "broken": 0}
  for i in range(num_inputs):
    # Damage adds up over some inputs.
    if i % CHUNK == 0 or rng.random() < 0.7:
      shutil.rmtree(root, ignore_errors=True)
      shutil.copytree(whole, root)
    _damage(rng, root)
    size = (H, W) if i % 2 else (None, None)
    with warnings.catch_warnings(record=True) as warned:
      warnings.simplefilter("always")
      alarm(SECONDS)
      try:
        outcome = _play(reader.uri.format(root=root), size)
      except BaseException as error:
        error.add_note(f"input {i} of {reader.name}")
        raise
      finally:
        alarm(0)
    assert not warned, (i, [str(w.message) for w in warned])
    if outcome is None:
      outcomes["refused"] += 1
    else:
      outcomes["broken" if outcome[1] else "whole"] += 1
  # Else what is damaged is nothing that is read.
  assert outcomes["refused"] + outcomes["broken"] > num_inputs // 2
