"""A video that an interrupted run goes on with: parts, joined in the end.

A video that breaks off cannot be gone on with, so that each stretch between two
checkpoints is a file of its own.
"""

import contextlib
import os
import pathlib
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

_MAX_DENOMINATOR = 2**16 - 1  # of a frame rate, in any container


class Codec(NamedTuple):
  """How pictures become a video."""

  name: str  # as FFmpeg calls it
  suffix: str  # of the container
  pixels: str  # of the pictures given
  coded_pixels: str
  options: dict[str, str]
  # Whether frame t is shown at t / fps even where frames before are missing.
  keeps_gaps: bool


# For any browser.
H264 = Codec("libx264", ".mp4", "rgb24", "yuv420p", {}, keeps_gaps=False)
# Lossless; every frame stands alone and has a checksum.
LABELS = Codec(
  *("ffv1", ".mkv", "gray", "gray"),
  {"level": "3", "g": "1", "slicecrc": "1"},
  keeps_gaps=True,
)


class PartedVideo:
  """Pictures of equal size, written as one part after the other."""

  def __init__(
    self,
    path: pathlib.Path,
    parts: pathlib.Path,
    codec: Codec,
    fps: float,
    start: int = 0,
  ):
    """Names the video and deletes the parts of frame `start` and later.

    Args:
      path: of the joined video.
      parts: the folder of the parts.
      codec: of all.
      fps: frames a second.
      start: the first frame that will be written.
    """
    self._path, self._parts, self._codec = path, parts, codec
    self._rate = Fraction(fps).limit_denominator(_MAX_DENOMINATOR)
    self._file = None
    parts.mkdir(exist_ok=True)
    drop_from(parts, start)

  def write(self, t: int, picture: np.ndarray) -> None:
    """Adds the picture of frame `t`, later than all before."""
    with self._whole_or_gone():
      if self._file is None:
        self._open(t, *picture.shape[:2])
      frame = av.VideoFrame.from_ndarray(picture, format=self._codec.pixels)
      frame.pts = t if self._codec.keeps_gaps else self._num_frames
      frame.time_base = 1 / self._rate
      self._num_frames += 1
      self._file.mux(self._stream.encode(frame))

  def _open(self, t, height, width):
    codec = self._codec
    self._part = self._parts / f"{t:06d}{codec.suffix}"
    self._file, self._num_frames = av.open(self._part, "w"), 0
    self._stream = self._file.add_stream(
      codec.name, rate=self._rate, options=codec.options
    )
    self._stream.height, self._stream.width = height, width
    self._stream.pix_fmt = codec.coded_pixels

  def cut(self) -> None:
    """Ends the part that is being written."""
    if self._file is not None:
      with self._whole_or_gone():
        self._file.mux(self._stream.encode(None))
        self._file.close()
      self._file = None

  @contextlib.contextmanager
  def _whole_or_gone(self):
    """Where writing fails the part goes: nobody could play or join it."""
    try:
      yield
    except BaseException:
      # Let go first: a file that failed to close tries once more at exit.
      file, self._file = self._file, None
      with contextlib.suppress(OSError):
        self._part.unlink()
        file.close()
      raise

  def close(self) -> None:
    """Makes one video of the parts, and keeps them."""
    self.cut()
    parts = sorted(self._parts.iterdir(), key=lambda part: int(part.stem))
    if parts:
      join(parts, self._path, self._codec, self._rate)


def join(
  parts: list[pathlib.Path],
  path: pathlib.Path,
  codec: Codec,
  rate: Fraction,
) -> None:
  """Puts videos of the same making one behind the other, as they are.

  The old video is replaced by a whole new one or not at all.
  """
  beside = path.with_name(f"{path.stem}.part{path.suffix}")
  try:
    with av.open(beside, "w") as joined:
      stream, num_frames = None, 0
      for part in parts:
        with av.open(part) as video:
          (source,) = video.streams.video
          stream = stream or joined.add_stream_from_template(source)
          shift = 0
          if not codec.keeps_gaps:
            shift = round(num_frames / rate / source.time_base)
          for packet in video.demux(source):
            if packet.dts is None:  # the end
              continue
            num_frames += 1
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = stream
            joined.mux(packet)
    os.replace(beside, path)
  except BaseException:
    # On a full disk its room is what others need.
    with contextlib.suppress(OSError):
      beside.unlink(missing_ok=True)
    raise


def drop_from(folder: pathlib.Path, start: int) -> None:
  """Deletes what a folder holds of frame `start` and later."""
  for path in folder.iterdir():
    if not path.stem.isdecimal() or int(path.stem) >= start:
      path.unlink()
