"""What every reader of files keeps to, with whole files and with damaged ones.

A whole stream can be read from any frame, in any size. A damaged input is
refused in one line, or what is whole of it is played. A new reader is one row
of READERS.
"""

import contextlib
import faulthandler
import json
import shutil
import signal
import warnings

import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.streams import base
from tests.reference import damage, lvs_folder, pictures, videos

H, W = 32, 40
NUM_INPUTS = 200  # of each reader
SECONDS = 5.0  # for each input
CHUNK = 25  # inputs from one to the next that begins with whole files


def _frame(t):
  y, x = np.mgrid[:H, :W]
  planes = [7 * y + t, 6 * x, (x * y + 40 * t)]
  return (np.stack(planes, -1) % 256).astype(np.uint8)


def _mask(t):
  mask = np.zeros((H, W), np.uint8)
  mask[4 + t : 20, 6:30] = 255
  return mask


def _write_folder(root):
  for t, suffix in enumerate(("png", "jpg", "png")):
    pictures.save(_frame(t), root / "frames" / f"{t}.{suffix}")
    pictures.save(_mask(t), root / "masks" / f"{t}.png")
  classes = {"0": "background", "255": "moving", "170": "ignore"}
  text = json.dumps({"fps": 25, "classes": classes})
  (root / "stream.json").write_text(text)


def _write_images(root):
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned upright
  image = Image.fromarray(_frame(0))
  image.save(root / "0.jpg", exif=exif)
  image.convert("RGBA").save(root / "1.png", exif=exif)
  plain = [Image.new("RGB", image.size)]
  image.quantize(16).save(root / "2.gif", save_all=True, append_images=plain)
  image.save(root / "3.tif", compression="tiff_lzw", exif=exif)
  image.save(root / "4.webp", exif=exif)
  image.save(root / "5.bmp")
  pictures.save(_frame(0)[..., 0].astype(np.uint16) * 257, root / "6.png")


def _write_davis(root):
  greys = np.arange(256)[:, None].repeat(3, 1)
  for name in ("bear", "swan"):
    for t in range(2):
      place = f"480p/{name}/0000{t}"
      pictures.save(_frame(t), root / f"JPEGImages/{place}.jpg")
      image = pictures.palette(_mask(t) // 255 * 3, greys)
      pictures.save(image, root / f"Annotations/{place}.png")
  (root / "ImageSets/2017").mkdir(parents=True)
  (root / "ImageSets/2017/val.txt").write_text("bear\nswan\n")


def _write_cityscapes(root):
  for t in range(2):
    frames, labels = root / "leftImg8bit_sequence", root / "gtFine"
    name = f"val/ulm/ulm_000000_00000{t}"
    pictures.save(_frame(t), frames / f"{name}_leftImg8bit.png")
    pictures.save(_mask(t), labels / f"{name}_gtFine_labelIds.png")


def _write_lvs(root):
  for i in range(2):
    chunk = f"driving100{i}"
    videos.write(root / f"{chunk}.mp4", map(_frame, range(3)))
    records = {t: lvs_folder.record(t, 3) for t in range(3)}
    lvs_folder.save_labels(root, chunk, records)


def _write_concat(root):
  for name, write in (("a", _write_folder), ("b", _write_images)):
    (root / name).mkdir()
    write(root / name)


# Name, what writes a valid input into a folder, and the URI of what is in it.
READERS = (
  ("folder", _write_folder, "folder:{root}"),
  ("images", _write_images, "images:{root}/**"),
  ("davis", _write_davis, "davis:{root}?objects=1"),
  ("cityscapes", _write_cityscapes, "cityscapes:{root}"),
  ("lvs", _write_lvs, "lvs:{root}"),
  ("concat", _write_concat, "concat:folder:{root}/a|images:{root}/b"),
)


@pytest.fixture(params=READERS, ids=lambda reader: reader[0])
def reader(request, tmp_path):
  """Where a whole input is, and what opens one there."""
  _, write, uri = request.param
  root = tmp_path / "whole"
  root.mkdir()
  write(root)
  open_in = lambda root, *size: base.open_stream(uri.format(root=root), *size)
  return root, open_in


def _check_equal(part, whole):
  for ours, expected in zip(part, whole, strict=True):
    assert (ours.t, ours.seconds) == (expected.t, expected.seconds)
    np.testing.assert_array_equal(ours.frame, expected.frame)
    np.testing.assert_array_equal(ours.truth, expected.truth)


def test_any_frame_can_be_the_first(reader):
  root, open_in = reader
  stream = open_in(root)
  whole = list(stream.read())
  assert [sample.t for sample in whole] == list(range(stream.spec.num_frames))
  for start in range(len(whole) + 2):
    _check_equal(stream.read(start), whole[start:])


def test_identity_follows_the_content_and_not_the_place(reader, tmp_path):
  root, open_in = reader
  twin = shutil.copytree(root, tmp_path / "twin")
  identity = open_in(root).spec.identity
  assert identity == open_in(twin).spec.identity
  assert identity == json.loads(json.dumps(identity))
  path = max(twin.rglob("*.[jpm][pn][g4]"))
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  assert open_in(twin, H, W).spec.identity != identity


@pytest.mark.parametrize("size", [(2 * H, 50), (33, None)])
def test_size_asked_for_is_given(reader, size):
  root, open_in = reader
  own, stream = open_in(root), open_in(root, *size)
  spec = stream.spec
  assert (spec.height, spec.width) == (size[0], size[1] or own.spec.width)
  assert spec.source_size == own.spec.source_size
  for sample, before in zip(stream.read(), own.read(), strict=True):
    assert not sample.problem
    damage.check(sample, spec)
    if sample.truth is not None:  # no new labels between two old ones
      assert not set(sample.truth.flat) - set(before.truth.flat)


@pytest.mark.parametrize(
  "keep", [lambda x: x[: len(x) * 3 // 4], lambda x: b"no"]
)
def test_broken_image_is_one_broken_sample(reader, keep):
  root, open_in = reader
  whole = list(open_in(root, 2 * H, 50).read())
  for path in sorted(root.rglob("*.*")):
    if path.suffix in (".json", ".txt", ".mp4", ".npy"):
      continue
    content = path.read_bytes()
    path.write_bytes(keep(content))
    try:
      samples = list(open_in(root, 2 * H, 50).read())
    except UserError as error:
      # A folder looks at the head of each file.
      assert keep(content) == b"no" and str(path) in str(error)
    else:
      (broken,) = (s for s in samples if s.frame is None)
      assert path.name in broken.problem and broken.truth is None
      assert (broken.t, broken.seconds) == (t := broken.t, whole[t].seconds)
      _check_equal(samples[:t], whole[:t])
      _check_equal(samples[t + 1 :], whole[t + 1 :])
    path.write_bytes(content)


# How an input is damaged.


def _cut(rng, data):
  return data[: rng.integers(len(data))]


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


_DAMAGES = (damage.edit, damage.edit, _cut, _repeat, _reword, _splash)


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


class _TooLong(BaseException):
  """Not an Exception, which a reader may take for a broken file."""


@contextlib.contextmanager
def _alarm():
  """Ends what takes too long; outside of Python, by the end of the process."""

  def ring(number, frame):
    raise _TooLong(f"more than {SECONDS} s")

  with contextlib.ExitStack() as stack:
    before = signal.signal(signal.SIGALRM, ring)
    stack.callback(signal.signal, signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
    faulthandler.dump_traceback_later(10 * SECONDS, exit=True)
    stack.callback(faulthandler.cancel_dump_traceback_later)
    yield


@pytest.mark.parametrize(
  "num_inputs",
  [NUM_INPUTS, pytest.param(10 * NUM_INPUTS, marks=pytest.mark.slow)],
)
def test_damaged_inputs(reader, tmp_path, num_inputs):
  whole, open_in = reader
  root = tmp_path / "damaged"
  rng = np.random.default_rng(0)
  outcomes = []
  for i in range(num_inputs):
    # Damage adds up over some inputs.
    if i % CHUNK == 0 or rng.random() < 0.7:
      shutil.rmtree(root, ignore_errors=True)
      shutil.copytree(whole, root)
    _damage(rng, root)
    size = (H, W) if i % 2 else (None, None)
    print("input", i)
    with warnings.catch_warnings(record=True) as warned, _alarm():
      warnings.simplefilter("always")
      outcomes.append(damage.play(lambda size=size: open_in(root, *size)))
    assert not warned, [str(w.message) for w in warned]
  # Else what is damaged is nothing that is read.
  assert outcomes.count("whole") < num_inputs // 2
