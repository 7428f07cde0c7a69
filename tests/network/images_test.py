"""Images come back as they went, and an enemy's end in one line."""

import functools
import io
import struct

import numpy as np
import pytest
from PIL import Image

from ojd.network import images
from ojd.network.messages import H264, JPEG, RAW, WireError

HEIGHT, WIDTH = 37, 50


def _frame(seed=0):
  rng = np.random.default_rng(seed)
  small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
  return np.array(small.resize((WIDTH, HEIGHT), Image.BICUBIC))


def _jpeg(image, **options):
  target = io.BytesIO()
  image.save(target, "JPEG", **options)
  return target.getvalue()


def _decode(data, codec=JPEG, height=HEIGHT, width=WIDTH):
  return images.decode_image(data, codec, height, width)


def _segment(kind, body):
  return struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body


def test_raw_pixels_come_back():
  frame = _frame()
  data = images.encode_image(frame, RAW)
  assert data == frame.tobytes()
  back = _decode(data, RAW)
  np.testing.assert_array_equal(back, frame)
  back[:] = 0  # it is the reader's own


def test_a_jpeg_is_what_any_reader_makes_of_it():
  frame = _frame()
  sizes = []
  for quality in (30, 90):
    data = images.encode_image(frame, JPEG, quality)
    back = _decode(data)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(back, expected)
    assert back.dtype == np.uint8
    sizes.append(len(data))
  assert np.abs(back.astype(int) - frame).mean() < 6
  assert sizes[0] < sizes[1] < frame.size


def test_what_lies_beside_the_picture_is_passed_over():
  data = images.encode_image(_frame(), JPEG)
  exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 30
  extras = _segment(0xE1, exif) + _segment(0xE2, b"MPF\0" + b"\xff" * 40)
  extras += _segment(0xFE, b"hello")
  np.testing.assert_array_equal(
    _decode(data[:2] + extras + data[2:]), _decode(data)
  )


def _with_size(data, height, width):
  begin = data.index(b"\xff\xc0") + 5
  return data[:begin] + struct.pack(">HH", height, width) + data[begin + 4 :]


_COMMENT = _segment(0xFE, b"")


@functools.cache
def _refused():
  image = Image.fromarray(_frame())
  data = _jpeg(image)
  scan = data.index(b"\xff\xda")
  return {
    "empty": (b"", "no JPEG"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "no JPEG"),
    "smaller": (_jpeg(image.crop((0, 0, WIDTH, 9))), "9x50 pixels, not 37x50"),
    "bomb": (_with_size(data, 65535, 65535), "65535x65535 pixels"),
    "grey": (_jpeg(image.convert("L")), "1 colours"),
    "cmyk": (_jpeg(image.convert("CMYK")), "4 colours"),
    "progressive": (_jpeg(image, progressive=True), "segment 0xc2"),
    "two scans": (data[: scan + 4] + b"\1" + data[scan + 5 :], "several scans"),
    "no frame": (data[:2] + data[scan:], "segment 0xda"),
    "no scan": (data[:scan] + b"\xff\xd9\0\2", "segment 0xd9"),
    "cut off": (data[:-200], "cannot be decoded"),
    "endless": (data[:2] + 10_000 * _COMMENT + data[2:], "segments"),
  }


@pytest.mark.parametrize("name", _refused())
def test_other_jpegs_are_refused(name):
  data, words = _refused()[name]
  with pytest.raises(WireError, match=words) as info:
    _decode(data)
  assert "\n" not in str(info.value)


def test_sizes_and_codecs():
  frame = _frame()
  raw = frame.tobytes()
  with pytest.raises(WireError, match="bytes for"):
    _decode(raw[:-1], RAW)
  with pytest.raises(WireError, match="not 'h264'"):
    _decode(raw, H264)
  for size in ((0, 5), (5, 0), (65535, 65535), (-1, -1)):
    with pytest.raises(WireError, match="frames of"):
      _decode(raw, RAW, *size)
  with pytest.raises(ValueError, match="raw or jpeg"):
    images.encode_image(frame, H264)
  for wrong in (frame[..., 0], frame.astype(float), frame[..., :2]):
    with pytest.raises(ValueError, match="a frame is"):
      images.encode_image(wrong, JPEG)


def test_damage_is_a_frame_or_an_error(capfd):
  data = images.encode_image(_frame(), JPEG)
  rng = np.random.default_rng(0)
  head = data.index(b"\xff\xda") + 14
  damaged = [data[:n] for n in range(0, len(data), 3)]
  for where in [*range(head), *rng.integers(head, len(data), 300)]:
    changed = bytearray(data)
    changed[where] ^= int(rng.integers(1, 256))
    damaged.append(bytes(changed))
  damaged += [data[:4] + rng.bytes(200) for _ in range(100)]
  num_frames = 0
  for changed in damaged:
    try:
      frame = _decode(changed)
    except WireError as error:
      assert "\n" not in str(error)
    else:
      assert (frame.shape, frame.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
      num_frames += 1
  assert 0 < num_frames < len(damaged)
  assert capfd.readouterr() == ("", "")
