"""Video files whose frames carry their number, written with PyAV."""

import fractions
import pathlib
from collections.abc import Iterable, Sequence

import av
import numpy as np

H, W = 64, 96
RATE = fractions.Fraction(25)
_BITS = 8
BASE = fractions.Fraction(1, 1000)


def image(t: int, height: int = H, width: int = W) -> np.ndarray:
  """[height, width, 3] uint8: colours below, the bits of t as tiles above."""
  y, x = np.mgrid[:height, :width].astype(np.float32)
  grey = 40 + 150 * x / width
  below = np.stack([grey, 230 - grey, 60 + 120 * y / height], -1)
  tile = np.minimum(x * _BITS // width, _BITS - 1).astype(int)
  bits = np.where((t >> tile) & 1, 230, 25)[..., None]
  return np.where(y[..., None] < height / 2, bits, below).astype(np.uint8)


def number(frame: np.ndarray) -> int:
  """The number that a frame carries, at any size."""
  height, width = frame.shape[:2]
  rows = frame[height // 6 : height // 3].mean((0, 2))
  tiles = [rows[width * (2 * i + 1) // (2 * _BITS)] for i in range(_BITS)]
  return sum(1 << i for i, grey in enumerate(tiles) if grey > 127)


def write(
  path: pathlib.Path,
  images: Iterable[np.ndarray],
  codec: str = "libx264",
  pix_fmt: str = "yuv420p",
  *,
  options: dict[str, str] | None = None,
  stamps: Sequence[int] | None = None,
  source: str = "rgb24",
  rate: fractions.Fraction = RATE,
  **container,
) -> pathlib.Path:
  """Codes images of one size; `stamps` are milliseconds."""
  images = list(images)
  with av.open(str(path), "w", **container) as file:
    stream = file.add_stream(codec, rate=rate)
    stream.height, stream.width = images[0].shape[:2]
    stream.pix_fmt = pix_fmt
    stream.options = options or {}
    if stamps is not None:
      stream.codec_context.time_base = BASE
    for t, pixels in enumerate(images):
      frame = av.VideoFrame.from_ndarray(pixels, format=source)
      if stamps is not None:
        frame.pts, frame.time_base = stamps[t], BASE
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return path


def rewrite(path: pathlib.Path, to: pathlib.Path, change) -> pathlib.Path:
  """Copies the packets, each as `change(i, its bytes)`; None leaves it out."""
  with av.open(str(path)) as old, av.open(str(to), "w") as new:
    stream = old.streams.video[0]
    twin = new.add_stream_from_template(stream)
    packets = [packet for packet in old.demux(stream) if packet.size]
    for i, packet in enumerate(packets):
      content = change(i, bytes(packet))
      if content is None:
        continue
      copy = av.Packet(content)
      for name in ("pts", "dts", "duration", "time_base", "is_keyframe"):
        setattr(copy, name, getattr(packet, name))
      copy.stream = twin
      new.mux(copy)
  return to


def patch(path: pathlib.Path, box: bytes, offset: int, content: bytes) -> None:
  """Overwrites bytes of an MP4 box, counted from behind its name."""
  whole = bytearray(path.read_bytes())
  begin = whole.index(box) + len(box) + offset
  whole[begin : begin + len(content)] = content
  path.write_bytes(whole)
