"""The frames of a message: a device packs them, and the server finds them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ojd.network import clips, images
from ojd.network.messages import H264, Frames, Terms
from ojd.types import Frame

QUALITY = 90  # of a JPEG


class Picture(NamedTuple):
  """A frame of the stream."""

  t: int
  time: float  # seconds of the stream
  frame: Frame  # [H, W, 3] uint8


def packer(terms: Terms, kbps: float) -> Callable[[Sequence[Picture]], Frames]:
  """What makes a message of frames of one size, in ascending order.

  Args:
    terms: of the device.
    kbps: that clips may take, by the time of the stream.
  """
  if terms.codec != H264:
    return lambda pictures: _message(
      terms,
      pictures,
      [images.encode_image(p.frame, terms.codec, QUALITY) for p in pictures],
    )
  writer = None

  def pack(pictures):
    nonlocal writer
    span = pictures[-1].time - pictures[0].time
    rate = (len(pictures) - 1) / span if span > 0 else 1.0
    # What one clip left unspent is the next one's.
    spare = None if writer is None else writer.spare
    writer = clips.ClipWriter(terms.height, terms.width, kbps, rate, spare)
    for picture in pictures:
      writer.add(picture.frame)
    return _message(terms, pictures, [writer.finish()])

  return pack


def _message(terms, pictures, chunks):
  times = tuple(picture.time for picture in pictures)
  return Frames(terms.codec, terms.height, terms.width, times, tuple(chunks))


def unpack(frames: Frames) -> list[Frame]:
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
