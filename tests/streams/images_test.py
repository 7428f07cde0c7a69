"""Any images as frames: which, in what order, and what becomes of odd ones."""

import os

import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.streams import base

H, W = 36, 48
ORIENTATION = 0x0112  # the tag of EXIF


def _frame(seed, height=H, width=W):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def _save(image, path, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  image.save(path, **options)


def _open(what, *size):
  return base.open_stream(f"images:{what}", *size)


def _only(root, *size):
  """The one frame of a folder."""
  (sample,) = _open(root, *size).read()
  assert sample.problem == ""
  return sample.frame


def _refusal(what):
  with pytest.raises(UserError) as error:
    _open(what)
  assert "\n" not in str(error.value)
  return str(error.value)


# Which files, and in what order.


def test_folder_in_natural_order(tmp_path):
  names = ["img10", "img2", "img1", "a1b10", "a1b9", "img02"]
  for seed, name in enumerate(names):
    _save(_frame(seed), tmp_path / f"{name}.png")
  stream = _open(tmp_path)
  assert stream.spec[:5] == (H, W, 25.0, 6, ())
  assert stream.spec.source_size == (H, W)
  order = ["a1b9", "a1b10", "img1", "img02", "img2", "img10"]
  samples = list(stream.read())
  assert [sample.t for sample in samples] == list(range(6))
  for sample, name in zip(samples, order, strict=True):
    np.testing.assert_array_equal(sample.frame, _frame(names.index(name)))
    assert sample.truth is None and sample.frame.dtype == np.uint8


@pytest.fixture
def tree(tmp_path):
  """Images in folders in folders, which show the number in their names."""
  for name in ("2.png", "10.png", "10/1.png", "2/7.jpg", "2/deep/3.png"):
    value = int(name.rpartition("/")[2].partition(".")[0])
    _save(np.full((H, W, 3), value, np.uint8), tmp_path / name)
  (tmp_path / "2" / "4.txt").write_text("no image")
  return tmp_path


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
  ],
)
def test_patterns(tree, pattern, expected):
  samples = _open(f"{tree}{pattern}").read()
  assert [round(sample.frame.mean()) for sample in samples] == expected


def test_folder_may_be_named_like_a_pattern(tmp_path):
  _save(_frame(0), tmp_path / "run[1]?" / "0.png")
  np.testing.assert_array_equal(_only(tmp_path / "run[1]?"), _frame(0))


@pytest.mark.parametrize("what", ["", "/*.png", "/nowhere", "/**"])
def test_no_images_are_refused(tmp_path, what):
  assert "no images" in _refusal("")
  (tmp_path / "notes.txt").write_text("hello")
  (tmp_path / "folder.png").mkdir()
  (tmp_path / ".hidden.png").write_bytes(b"")
  refusal = _refusal(f"{tmp_path}{what}")
  assert "no images" in refusal and "*.png" in refusal


def test_pipes_and_dangling_links_are_passed_over(tmp_path):
  _save(_frame(0), tmp_path / "0.png")
  os.mkfifo(tmp_path / "1.png")
  (tmp_path / "2.png").symlink_to(tmp_path / "nowhere.png")
  assert _open(tmp_path).spec.num_frames == 1


# Kinds of images.


def test_grey_of_8_and_16_bits(tmp_path):
  values = np.arange(H * W).reshape(H, W)
  _save((values % 256).astype(np.uint8), tmp_path / "1.png")
  sixteen = (values * 37).astype(np.uint16)  # up to 63,899
  sixteen[-1, -3:] = 0, 257, 65535
  _save(sixteen, tmp_path / "2.png")
  _save(sixteen, tmp_path / "3.tif")
  first, *others = (sample.frame for sample in _open(tmp_path).read())
  np.testing.assert_array_equal(first, np.stack([values % 256] * 3, -1))
  for frame in others:
    expected = np.round(sixteen / 257)
    np.testing.assert_array_equal(frame, np.stack([expected] * 3, -1))


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_transparency_shows_black(tmp_path, suffix):
  frame, alpha = _frame(0), _frame(1)[..., :1]
  image = Image.fromarray(np.concatenate([frame, alpha], -1))
  options = {"lossless": True, "exact": True} if suffix == "webp" else {}
  _save(image, tmp_path / f"0.{suffix}", **options)
  expected = frame * (alpha / 255.0)
  assert np.abs(_only(tmp_path) - expected).max() <= 1


def test_palette_and_its_transparent_colour(tmp_path):
  indices = np.arange(H * W, dtype=np.uint8).reshape(H, W) % 4
  colours = np.array([[9, 8, 7], [250, 0, 3], [0, 99, 0], [255, 255, 255]])
  image = Image.frombytes("P", (W, H), indices.tobytes())
  image.putpalette(colours.astype(np.uint8).ravel().tolist())
  _save(image, tmp_path / "0.png")
  _save(image, tmp_path / "1.png", transparency=bytes([255, 255, 0, 255]))
  _save(image, tmp_path / "2.gif")
  opaque, clear, gif = (sample.frame for sample in _open(tmp_path).read())
  np.testing.assert_array_equal(opaque, colours[indices])
  np.testing.assert_array_equal(gif, colours[indices])
  colours[2] = 0
  np.testing.assert_array_equal(clear, colours[indices])


def test_black_and_white(tmp_path):
  bits = _frame(0)[..., 0] > 99
  _save(Image.fromarray(bits), tmp_path / "0.png")
  np.testing.assert_array_equal(_only(tmp_path)[..., 1], bits * 255)


def test_cmyk(tmp_path):
  inks = np.zeros((H, W, 4), np.uint8)
  inks[:, W // 2 :, 0] = 255  # cyan takes all red
  _save(Image.fromarray(inks, "CMYK"), tmp_path / "0.tif")
  frame = _only(tmp_path)
  assert (frame[:, : W // 2] == 255).all()
  assert (frame[:, W // 2 :] == (0, 255, 255)).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_picture_counts(tmp_path, suffix):
  pictures = [Image.new("RGB", (W, H), (x, x, x)) for x in (60, 120, 200)]
  path = tmp_path / f"0.{suffix}"
  _save(pictures[0], path, save_all=True, append_images=pictures[1:])
  stream = _open(tmp_path)
  assert stream.spec.num_frames == 1
  assert abs(next(stream.read()).frame.mean() - 60) < 2


# How numpy turns a stored picture upright, by the value of the tag.
UPRIGHT = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.transpose(1, 0, 2),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
  8: lambda x: np.rot90(x, 1),
  9: lambda x: x,
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_rotated_pictures_become_upright(tmp_path, orientation, suffix):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  options = {"lossless": True} if suffix == "webp" else {}
  path = tmp_path / f"0.{suffix}"
  _save(_frame(0), path, exif=exif.tobytes(), **options)
  expected = UPRIGHT[orientation](_frame(0))
  np.testing.assert_array_equal(_only(tmp_path), expected)
  assert _open(tmp_path).spec.source_size == expected.shape[:2]


def test_rotated_16_bits(tmp_path):
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  grey = np.arange(H * W, dtype=np.uint16).reshape(H, W) * 37
  _save(grey, tmp_path / "0.png", exif=exif.tobytes())
  expected = np.rot90(np.round(grey / 257), -1)
  np.testing.assert_array_equal(_only(tmp_path)[..., 0], expected)


# Sizes, and what is broken.


def test_first_image_gives_the_size(tmp_path):
  _save(_frame(0), tmp_path / "1.png")
  tall = np.zeros((4 * H, 2 * W, 3), np.uint8)
  tall[2 * H :] = 255
  _save(tall, tmp_path / "2.png")
  stream = _open(tmp_path)
  assert (stream.spec.height, stream.spec.width) == (H, W)
  frame = list(stream.read())[1].frame
  assert frame.shape == (H, W, 3)
  assert frame[: H // 2 - 2].max() == 0 and frame[H // 2 + 2 :].min() == 255


def test_size_asked_for(tmp_path):
  _save(_frame(0), tmp_path / "0.png")
  assert _only(tmp_path, 40, 32).shape == (40, 32, 3)
  spec = _open(tmp_path, 40).spec
  assert (spec.height, spec.width, spec.source_size) == (40, W, (H, W))


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, None])
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_broken_image_is_one_broken_sample(tmp_path, broken, content):
  for t in range(3):
    _save(_frame(t), tmp_path / f"{t}.png")
  path = tmp_path / f"{broken}.png"
  path.write_bytes(path.read_bytes()[:900] if content is None else content)
  stream = _open(tmp_path)
  assert (stream.spec.height, stream.spec.width) == (H, W)
  for t, sample in enumerate(stream.read()):
    if t == broken:
      assert sample[:3] == (t, None, None)
      assert path.name in sample.problem and "\n" not in sample.problem
    else:
      np.testing.assert_array_equal(sample.frame, _frame(t))


def test_nothing_but_broken_images_is_refused(tmp_path):
  for t in range(3):
    (tmp_path / f"{t}.png").write_bytes(b"garbage")
  refusal = _refusal(tmp_path)
  assert "none of the 3 images" in refusal and "0.png" in refusal
