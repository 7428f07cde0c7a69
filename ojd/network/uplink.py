"""Key frames upwards: how a device encodes them, and a server decodes them.

Each frame is an image, or several are one clip. The pixels at the other end are
known as soon as a frame is added.
"""

from ojd.network import clips, images
from ojd.network.conditions import Upload
from ojd.network.messages import H264, Frames
from ojd.types import Frame


class Uplink:
  """Encodes a device's key frames."""

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
    self._decoded: Frame | None = None  # the latest of the clip
    # Of the bytes for clips: what one left unspent is the next one's.
    self.spare: int | None = None

  @property
  def is_empty(self) -> bool:
    """Whether nothing waits to be sent."""
    return not self._times

  def add(self, frame: Frame, seconds: float, rate: float) -> None:
    """Takes a frame.

    Args:
      frame: [H, W, 3] uint8.
      seconds: of the stream; later than that of the frame before.
      rate: frames a second that are added, about.
    """
    self._times.append(seconds)
    codec = self._upload.codec
    if codec != H264:
      quality = self._upload.quality
      self._chunks.append(images.encode_image(frame, codec, quality))
      return
    if self._clip is None:
      kbps = self._upload.kbps
      self._clip = clips.ClipWriter(*self._size, kbps, rate, self.spare)
    self._decoded = self._clip.add(frame)

  def seen(self) -> Frame:
    """What the other end will see of the frame that was added last."""
    if self._clip is not None:
      return self._decoded
    return images.decode_image(
      self._chunks[-1], self._upload.codec, *self._size
    )

  def flush(self) -> Frames:
    """The message with the frames that were added since the last one."""
    if self._clip is not None:
      self._chunks.append(self._clip.finish())
      self.spare, self._clip = self._clip.spare, None
    frames = Frames(
      self._upload.codec, *self._size, tuple(self._times), tuple(self._chunks)
    )
    self._times, self._chunks = [], []
    return frames


def decode_frames(frames: Frames) -> list[Frame]:
  """The frames of a message.

  Raises:
    WireError: they cannot be decoded.
  """
  height, width = frames.height, frames.width
  if frames.codec != H264:
    return [
      images.decode_image(chunk, frames.codec, height, width)
      for chunk in frames.chunks
    ]
  return clips.decode_clip(frames.chunks[0], len(frames.times), height, width)
