"""Sampled frames as a device sends them upwards: H.264 at a bit rate.

A clip is a bare H.264 stream (Annex B): a key frame, and frames that each
refer to earlier ones of the clip only. Frames of an odd size get another row or
column, which the reader removes.

Colours are those of BT.601, limited range, computed in whole numbers and so
equal on all machines. One chroma sample is in the middle of four pixels; the
reader interpolates.

A bucket limits the bits: each frame adds its budget, and a clip starts with the
bytes that the clip before left. So quality is even, and the rate holds over any
longer time. A good quality is never exceeded.
"""

import av
import numpy as np

from ojd.network import h264
from ojd.network.images import check_frame, check_size
from ojd.network.messages import WireError
from ojd.types import Frame

_BEST = 18  # of x264's constant rate factor: no frame needs to look better
# In what a frame may cost. The encoder keeps the bucket about half full, and
# lets the first frame of a clip take half of what is there.
_BUCKET_FRAMES = 6
_FIRST_FILL = 3
# The encoder's time base: a frame of more than a second is one of a second to
# it, and all that counts are the bytes of a frame.
_NOMINAL_RATE = 25
_MAX_FRAME_BYTES = 10_000_000  # x264's numbers end there
_PIXELS = "yuv420p"
_MARGIN = 256  # pixels of a side, for what a decoder adds
_OPTIONS = {
  "preset": "faster",
  "tune": "zerolatency",
  "crf": str(_BEST),
  "g": str(10**6),  # key frames only where a clip or a scene begins
  "x264-params": "colormatrix=smpte170m",
}
# 16 + M rgb is Y, 128 + M rgb are U and V, all times 2**16.
_FROM_RGB = np.array(
  [
    [16829, 33039, 6416],
    [-9714, -19071, 28784],
    [28784, -24103, -4681],
  ],
  np.int32,
)
_FROM_Y = 76309
_FROM_U = (0, -25675, 132201)  # to R, G and B
_FROM_V = (104597, -53279, 0)


class ClipWriter:
  """Makes clips; equal frames give equal bytes on one machine."""

  def __init__(
    self,
    height: int,
    width: int,
    kbps: float,
    rate: float,
    spare: float | None = None,
  ):
    """Begins with an empty clip.

    Args:
      height: of the frames.
      width: likewise.
      kbps: 1000 bits a second of the stream, more than 0.
      rate: frames a second of the stream, more than 0.
      spare: of the writer whose clips these follow, if there was one.
    """
    check_size(height, width)
    if not (kbps > 0 and rate > 0):
      raise ValueError(f"{kbps} kbps at {rate} frames a second")
    self._size = height, width
    self._share = min(125 * kbps / rate, _MAX_FRAME_BYTES)  # bytes a frame
    self._spare = _FIRST_FILL * self._share if spare is None else spare
    self._pictures = []
    self._encoder = self._decoder = None

  @property
  def is_empty(self) -> bool:
    """Whether no frame was added since the last clip."""
    return not self._pictures

  @property
  def spare(self) -> float:
    """Bytes that may be spent at once; below 0 it is a debt."""
    return self._spare

  def add(self, frame: Frame) -> Frame:
    """Encodes the next frame; returns what the clip's reader will see."""
    frame = np.asarray(frame)
    check_frame(frame, *self._size)
    if self._encoder is None:
      self._encoder = _encoder(*self._size, self._share, self._spare)
      self._decoder = _Decoder(*self._size)
    planes = yuv_of_rgb(_padded(frame))
    image = av.VideoFrame.from_ndarray(planes, format=_PIXELS)
    (packet,) = self._encoder.encode(image)
    # Without x264's words about itself, hundreds of bytes.
    (picture,) = h264.split(bytes(packet), 1, *_even(*self._size))
    self._pictures.append(picture)
    spare = self._spare - len(picture) + self._share
    most = _BUCKET_FRAMES * self._share
    self._spare = min(max(spare, -most), most)
    (decoded,) = self._decoder.decode(picture)
    return decoded

  def finish(self) -> bytes:
    """Returns the clip of the frames so far, and starts the next one."""
    if self.is_empty:
      raise ValueError("a clip of no frames")
    clip = b"".join(self._pictures)
    self._pictures = []
    self._encoder = self._decoder = None
    return clip


def decode_clip(data: bytes, num: int, height: int, width: int) -> list[Frame]:
  """The frames of a clip, [height, width, 3] uint8 each.

  Raises:
    WireError: it is damaged, or has another number or size of frames.
  """
  check_size(height, width)
  decoder, frames = _Decoder(height, width), []
  for picture in [*h264.split(data, num, *_even(height, width)), None]:
    frames += decoder.decode(picture)
    if len(frames) > num:
      break
  if len(frames) != num:
    raise WireError(f"a clip that decodes to {len(frames)} frames, not {num}")
  return frames


def _encoder(height, width, share, spare):
  """An encoder for one clip.

  Args:
    height: of its frames.
    width: likewise.
    share: bytes that a frame may cost.
    spare: bytes that are in the bucket.
  """
  most = _BUCKET_FRAMES * share
  context = av.CodecContext.create("libx264", "w")
  context.height, context.width = _even(height, width)
  context.pix_fmt, context.framerate = _PIXELS, _NOMINAL_RATE
  context.thread_count = 1  # others would change the bytes
  bits = {
    "maxrate": 8 * share * _NOMINAL_RATE,
    "bufsize": 8 * most,
    "rc_init_occupancy": 8 * min(max(spare, 0), most),
  }
  # The encoder counts in thousands, and takes 0 for no limit.
  context.options = _OPTIONS | {
    name: str(max(round(value), 1000)) for name, value in bits.items()
  }
  return context


class _Decoder:
  """Decodes the pictures of a clip."""

  def __init__(self, height, width):
    self._size = height, width
    self._context = av.CodecContext.create("h264", "r")
    self._context.thread_count = 1  # others would hold frames back
    self._context.options = {
      "err_detect": "explode",
      # Behind the check of the parameters, a second fence.
      "max_pixels": str((height + _MARGIN) * (width + _MARGIN)),
    }

  def decode(self, picture: bytes | None) -> list[Frame]:
    """The frames that come out at a picture, or at the end (None)."""
    try:
      frames = self._context.decode(picture and av.Packet(picture))
    except av.FFmpegError as error:
      words = error.strerror or type(error).__name__
      raise WireError(f"a clip that cannot be decoded ({words})") from None
    return [self._to_rgb(frame) for frame in frames]

  def _to_rgb(self, frame):
    if frame.is_corrupt:
      raise WireError("a clip that is damaged")
    size = frame.height, frame.width
    if size != _even(*self._size) or frame.format.name != _PIXELS:
      raise WireError(
        f"a clip of {size[0]}x{size[1]} pixels, {frame.format.name}"
      )
    height, width = self._size
    return rgb_of_yuv(frame.to_ndarray())[:height, :width].copy()


def _padded(frame):
  """The frame with its last row and column repeated, up to even sides."""
  height, width = frame.shape[:2]
  return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")


def _even(height, width):
  return height + height % 2, width + width % 2


def yuv_of_rgb(frame: np.ndarray) -> np.ndarray:
  """The planes Y, U and V, one behind the other.

  Args:
    frame: [H, W, 3] uint8.

  Returns:
    [3 H / 2, W] uint8.
  """
  height, width = frame.shape[:2]
  rgb = frame.astype(np.int32)
  four = rgb[::2, ::2] + rgb[::2, 1::2] + rgb[1::2, ::2] + rgb[1::2, 1::2]
  luma, *chroma = _FROM_RGB
  planes = (
    _rounded((16 << 16) + _dot(rgb, luma), 16),
    *(_rounded((128 << 18) + _dot(four, row), 18) for row in chroma),
  )
  planes = [plane.astype(np.uint8).ravel() for plane in planes]
  return np.concatenate(planes).reshape(height * 3 // 2, width)


def rgb_of_yuv(planes: np.ndarray) -> np.ndarray:
  """The inverse of `yuv_of_rgb`: [H, W, 3] uint8."""
  height, width = planes.shape[0] * 2 // 3, planes.shape[1]
  u, v = planes[height:].reshape(2, height // 2, width // 2).astype(np.int32)
  luma = _FROM_Y * (planes[:height].astype(np.int32) - 16)
  frame = np.empty((height, width, 3), np.uint8)
  for channel in range(3):
    chroma = _FROM_U[channel] * (u - 128) + _FROM_V[channel] * (v - 128)
    value = _rounded(luma + _doubled(_doubled(chroma).T).T, 16)
    frame[..., channel] = np.clip(value, 0, 255)
  return frame


def _dot(pixels, row):
  # By hand: a product of matrices has no quick way for whole numbers.
  return sum(pixels[..., channel] * row[channel] for channel in range(3))


def _rounded(value, bits):
  """The nearest whole number of `bits` bits less."""
  return (value + (1 << bits - 1)) >> bits


def _doubled(values):
  """[2 N, M] for [N, M]: between two, at a quarter and three quarters."""
  padded = np.concatenate([values[:1], values, values[-1:]])
  doubled = np.empty((2 * len(values), values.shape[1]), values.dtype)
  doubled[::2] = _rounded(3 * values + padded[:-2], 2)
  doubled[1::2] = _rounded(3 * values + padded[2:], 2)
  return doubled
