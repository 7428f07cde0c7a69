"""Any images as frames: which, in what order, and what becomes of odd ones."""

import os

import numpy as np
import pytest
from PIL import Image

from ojd.streams import base
from tests.reference.pictures import H, W, flat, noise, palette, save
from tests.reference.refusals import refused

ORIENTATION = 0x0112  # the tag of EXIF
GREY = np.arange(H * W).reshape(H, W)
LOSSLESS = {"webp": {"lossless": True, "exact": True}}


def _open(what, *size):
  return base.open_stream(f"images:{what}", *size)


def _frames(root):
  samples = list(_open(root).read())
  assert not any(sample.problem for sample in samples)
  return [sample.frame for sample in samples]


# Which files, and in what order.


def test_folder_in_natural_order(tmp_path):
  names = ["img10", "img2", "img1", "a1b10", "a1b9", "img02"]
  for seed, name in enumerate(names):
    save(noise(seed), tmp_path / f"{name}.png")
  stream = _open(tmp_path)
  assert stream.spec[:5] == (H, W, 25.0, 6, ())
  assert stream.spec.source_size == (H, W)
  order = ["a1b9", "a1b10", "img1", "img02", "img2", "img10"]
  samples = list(stream.read())
  assert [sample.t for sample in samples] == list(range(6))
  for sample, name in zip(samples, order, strict=True):
    np.testing.assert_array_equal(sample.frame, noise(names.index(name)))
    assert sample.truth is None and sample.frame.dtype == np.uint8


@pytest.mark.parametrize(
  ("pattern", "expected"),
  [
    ("", [2, 10]),
    ("/*.png", [2, 10]),
    ("/?.png", [2]),
    ("/[0-9][0-9].png", [10]),
    ("/*/*", [7, 1]),
    ("/**/*.png", [3, 2, 1, 10]),
    ("/2/**", [7, 3]),
    ("/run[1]?", [5]),  # a folder may be named like a pattern
  ],
)
def test_patterns(tmp_path, pattern, expected):
  """Other files, pipes and dangling links are passed over."""
  names = ("2.png", "10.png", "10/1.png", "2/7.jpg", "2/deep/3.png")
  if "run" in pattern:
    names = ("run[1]?/5.png", "run1x/6.png")
  for name in names:
    value = int(name.rpartition("/")[2].partition(".")[0])
    save(flat(value), tmp_path / name)
  (tmp_path / "2").mkdir(exist_ok=True)
  (tmp_path / "2/4.txt").write_text("no image")
  os.mkfifo(tmp_path / "2/5.png")
  (tmp_path / "2/6.png").symlink_to(tmp_path / "nowhere.png")
  frames = _frames(f"{tmp_path}{pattern}")
  assert [round(frame.mean()) for frame in frames] == expected


@pytest.mark.parametrize("what", ["", "/*.png", "/nowhere", "/**"])
def test_no_images_are_refused(tmp_path, what):
  (tmp_path / "notes.txt").write_text("hello")
  (tmp_path / "folder.png").mkdir()
  (tmp_path / ".hidden.png").write_bytes(b"")
  with refused("no images", "*.png"):
    _open(f"{tmp_path}{what}")
  with refused("no images"):
    _open("")


# Kinds of images.


SIXTEEN = (GREY * 37).astype(np.uint16)  # up to 63,899
SIXTEEN[-1, -3:] = 0, 257, 65535
FEW = GREY % 3 > 1
CYAN = np.full((H, W, 4), [255, 0, 0, 0], np.uint8)  # takes all red
ALPHA = noise(1)[..., :1]


@pytest.mark.parametrize(
  ("image", "suffixes", "expected", "error"),
  [
    (GREY.astype(np.uint8), "png", GREY[..., None] % 256, 0),
    (SIXTEEN, "png tif", np.round(SIXTEEN / 257)[..., None], 0),
    (FEW, "png", FEW[..., None] * 255, 0),
    (Image.fromarray(CYAN, "CMYK"), "tif", (0, 255, 255), 0),
    # What is transparent shows black.
    (
      np.concatenate([noise(0), ALPHA], -1),
      *("png webp tif", noise(0) * (ALPHA / 255), 1),
    ),
  ],
  ids=["8 bits", "16 bits", "black and white", "cmyk", "alpha"],
)
def test_kinds_become_rgb(tmp_path, image, suffixes, expected, error):
  for suffix in suffixes.split():
    save(image, tmp_path / f"0.{suffix}", **LOSSLESS.get(suffix, {}))
  frames = np.stack(_frames(tmp_path))
  assert len(frames) == len(suffixes.split())
  assert np.abs(frames - expected).max() <= error


def test_palette_and_its_transparent_colour(tmp_path):
  indices = GREY % 4
  colours = np.array([[9, 8, 7], [250, 0, 3], [0, 99, 0], [255, 255, 255]])
  image = palette(indices, colours)
  save(image, tmp_path / "0.png")
  save(image, tmp_path / "1.gif")
  save(image, tmp_path / "2.png", transparency=bytes([255, 255, 0, 255]))
  opaque, gif, clear = _frames(tmp_path)
  np.testing.assert_array_equal(opaque, colours[indices])
  np.testing.assert_array_equal(gif, colours[indices])
  colours[2] = 0
  np.testing.assert_array_equal(clear, colours[indices])


def test_of_an_animation_the_first_picture_counts(tmp_path):
  first, *others = (Image.fromarray(flat(grey)) for grey in (60, 120, 200))
  for suffix in ("gif", "png", "webp", "tif"):
    save(first, tmp_path / f"0.{suffix}", save_all=True, append_images=others)
  frames = np.stack(_frames(tmp_path))
  assert len(frames) == 4 and np.abs(frames - 60.0).max() < 3


# How numpy turns a stored picture upright, by the value of the tag.
UPRIGHT = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
  8: lambda x: np.rot90(x, 1),
  9: lambda x: x,
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_rotated_pictures_become_upright(tmp_path, orientation, suffix):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  options = {"exif": exif.tobytes(), **LOSSLESS.get(suffix, {})}
  save(noise(0), tmp_path / f"0.{suffix}", **options)
  upright = UPRIGHT[orientation]
  np.testing.assert_array_equal(_frames(tmp_path)[0], upright(noise(0)))
  assert _open(tmp_path).spec.source_size == upright(GREY).shape
  if suffix == "png":  # of 16 bits, too
    save(SIXTEEN, tmp_path / "0.png", **options)
    expected = upright(np.round(SIXTEEN / 257))
    np.testing.assert_array_equal(_frames(tmp_path)[0][..., 0], expected)


# Sizes, and what is broken.


def test_first_image_gives_the_size(tmp_path):
  save(noise(0), tmp_path / "1.png")
  tall = np.repeat(flat(0, 4, 2 * W), H, 0)
  tall[2 * H :] = 255
  save(tall, tmp_path / "2.png")
  frame = _frames(tmp_path)[1]
  assert frame.shape == (H, W, 3)
  assert frame[: H // 2 - 2].max() == 0 and frame[H // 2 + 2 :].min() == 255


def test_broken_images(tmp_path):
  save(noise(1), tmp_path / "1.png")
  (tmp_path / "0.png").write_bytes(b"")
  stream = _open(tmp_path)  # the first whole one gives the size
  assert (stream.spec.height, stream.spec.width) == (H, W)
  assert [sample.frame is None for sample in stream.read()] == [True, False]
  (tmp_path / "1.png").write_bytes(b"garbage")
  with refused("none of the 2 images", "0.png"):
    _open(tmp_path)
