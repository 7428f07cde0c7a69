"""Single images as a device sends them upwards: the pixels, or a JPEG.

The reader knows the size of the frames and accepts no other. It reads the
header of a JPEG before it decodes anything, and accepts one scan of all three
colours, so that the size of an image bounds the time. A JPEG's colours are
YCbCr; data beside the picture is skipped.
"""

import io
import struct

import numpy as np
from PIL import Image, JpegImagePlugin

from ojd.network.messages import JPEG, RAW, WireError
from ojd.streams.base import MAX_SIDE
from ojd.types import Frame

_MAX_SEGMENTS = 100  # before the scan
_QUANTIZERS, _CODES, _RESTART, _SCAN = 0xDB, 0xC4, 0xDD, 0xDA
_SEQUENTIAL = (0xC0, 0xC1)  # frames of 8 bits with Huffman codes
_IGNORED = (*range(0xE0, 0xF0), 0xFE)  # applications' own, and comments
_FRAME = struct.Struct(">BHHB")  # bits, height, width, colours


def encode_image(frame: Frame, codec: str, quality: int = 90) -> bytes:
  """The bytes of a frame.

  Args:
    frame: [H, W, 3] uint8.
    codec: RAW or JPEG.
    quality: of a JPEG, from 1 to 95.
  """
  frame = np.asarray(frame)
  check_frame(frame, *frame.shape[:2])
  if codec == RAW:
    return frame.tobytes()
  if codec != JPEG:
    raise ValueError(f"an image is {RAW} or {JPEG}, not {codec!r}")
  target = io.BytesIO()
  # Colours in full: in half the size of small frames, a teacher misses things.
  image = Image.fromarray(frame)
  image.save(target, "JPEG", quality=quality, subsampling=0)
  return target.getvalue()


def decode_image(data: bytes, codec: str, height: int, width: int) -> Frame:
  """The frame of the bytes, [height, width, 3] uint8.

  Raises:
    WireError: it is damaged, or of another size.
  """
  check_size(height, width)
  if codec == RAW:
    if len(data) != height * width * 3:
      raise WireError(f"{len(data)} bytes for {height}x{width} pixels")
    return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()
  if codec != JPEG:
    raise WireError(f"an image is {RAW} or {JPEG}, not {codec!r}")
  data = _without_extras(data, height, width)
  try:
    # The class itself: `Image.open` looks for more in a file, with warnings.
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
      frame = np.array(image)
  # Damaged files leave Pillow's readers with errors of nearly every kind.
  except Exception as error:
    words = " ".join(str(error).split()) or type(error).__name__
    raise WireError(f"a JPEG that cannot be decoded ({words})") from None
  if frame.shape != (height, width, 3):
    raise WireError(f"a JPEG of {frame.shape}, not of {height}x{width} pixels")
  return frame


def check_size(height: int, width: int) -> None:
  """Raises a WireError where no frame is of this size."""
  if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
    raise WireError(f"frames of {height}x{width} pixels")


def check_frame(frame: np.ndarray, height: int, width: int) -> None:
  """Raises a ValueError unless it is a frame of this size."""
  if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
    raise ValueError(
      f"a frame is [{height}, {width}, 3] uint8, not {frame.shape} "
      f"{frame.dtype}"
    )


def _without_extras(data, height, width):
  """The JPEG with only the segments of its pixels, if it is of this size."""
  if data[:2] != b"\xff\xd8":
    raise WireError("an image that is no JPEG")
  kept, position, has_frame = [data[:2]], 2, False
  for _ in range(_MAX_SEGMENTS):
    if len(data) < position + 4 or data[position] != 0xFF:
      raise WireError("a JPEG that is damaged or cut off")
    kind, length = struct.unpack_from(">BH", data, position + 1)
    end = position + 2 + length
    body = data[position + 4 : end]
    if len(body) != length - 2:  # nor is it where the length is less than two
      raise WireError("a JPEG that is cut off")
    if kind in _SEQUENTIAL and not has_frame:
      _check_head(body, height, width)
      has_frame = True
    elif kind == _SCAN and has_frame:
      if body[:1] != b"\3":
        raise WireError("a JPEG whose colours lie in several scans")
      return b"".join((*kept, data[position:]))
    elif kind not in (_QUANTIZERS, _CODES, _RESTART, *_IGNORED):
      raise WireError(f"a JPEG with a segment {kind:#x}, not a baseline one")
    if kind not in _IGNORED:
      kept.append(data[position:end])
    position = end
  raise WireError(f"a JPEG of more than {_MAX_SEGMENTS} segments")


def _check_head(body, height, width):
  if len(body) < _FRAME.size:
    raise WireError("a JPEG that is cut off")
  bits, *size, colours = _FRAME.unpack_from(body)
  if size != [height, width]:
    raise WireError(
      f"a JPEG of {size[0]}x{size[1]} pixels, not {height}x{width}"
    )
  if (bits, colours) != (8, 3):
    raise WireError(f"a JPEG of {colours} colours of {bits} bits, not 3 of 8")
