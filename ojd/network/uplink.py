"""Key frames on their way up: what is sent of them, and what arrives.

A frame goes as an image of its own, at once, or a few of them as one clip once
the last of them is there. What the other end will see of a frame is known as
soon as it is added.
"""

import numpy as np

from ojd.network import clips, images, wire
from ojd.network.conditions import Upload
from ojd.network.messages import H264, Frames
from ojd.types import Frame


class Uplink:
  """What a device does with its key frames."""

  def __init__(self, upload: Upload, height: int, width: int):
    """Sends frames of one size.

    Args:
      upload: how; with a codec.
      height: of the frames; so is width.
      width: likewise.
    """
    self._upload, self._size = upload, (height, width)
    self._times: list[float] = []
    self._chunks: list[bytes] = []
    self._clip: clips.ClipWriter | None = None
    self.spare: int | None = None  # of the bytes for clips; None at first

  @property
  def is_empty(self) -> bool:
    """Whether nothing waits to be sent."""
    return not self._times

  def add(self, frame: Frame, seconds: float, rate: float) -> np.ndarray:
    """Takes a frame; returns what will be seen of it.

    Args:
      frame: [H, W, 3] uint8.
      seconds: of the stream; later than that of the frame before.
      rate: frames a second that are added, about.
    """
    self._times.append(seconds)
    codec = self._upload.codec
    if codec != H264:
      self._chunks.append(
        images.encode_image(frame, codec, self._upload.quality)
      )
      return images.decode_image(self._chunks[-1], codec, *self._size)
    if self._clip is None:
      kbps = self._upload.kbps
      self._clip = clips.ClipWriter(*self._size, kbps, rate, self.spare)
    return self._clip.add(frame)

  def flush(self) -> tuple[int, bytes]:
    """How many were added since the last time, and the message with them."""
    if self._clip is not None:
      self._chunks.append(self._clip.finish())
      self.spare, self._clip = self._clip.spare, None
    frames = Frames(
      self._upload.codec, *self._size, tuple(self._times), tuple(self._chunks)
    )
    self._times, self._chunks = [], []
    return len(frames.times), wire.encode(frames)
