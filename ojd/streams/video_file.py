"""Video files: opened so that no other file is, and read without decoding."""

import array
import contextlib
import fractions
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np

from ojd.errors import UserError
from ojd.streams.base import MAX_SIDE

# Files that hold their frames themselves: no playlist, whose entries would be
# opened as well, no pattern of file names and no device.
_CONTAINERS = """
  mov matroska avi gif apng mpegts mpeg flv live_flv ogg asf asf_o ivf obu h264
  hevc av1 mjpeg m4v mpegvideo h263 nut mxf dv yuv4mpegpipe rm wtv
"""
_MAX_PACKETS = 10_000_000
_MAX_FAILURES = 100  # of the reader, in one file; it goes on behind each
NO_STAMP = int(np.iinfo(np.int64).min)
_VP8_SHOWN = 0x10  # in a packet's first byte


class Packets(NamedTuple):
  """One entry a packet, as they lie in the file; [P] each."""

  pts: np.ndarray  # int64
  is_key: np.ndarray  # bool
  is_shown: np.ndarray  # bool
  hole: np.ndarray  # int64, bytes before it that belong to no packet


class Head(NamedTuple):
  """What the container says of itself."""

  format: str
  time_base: fractions.Fraction
  fps: float  # 0 where it does not say


@contextlib.contextmanager
def open_file(path: pathlib.Path):
  """Gives the container and its video stream, for use in a with block."""
  # "file:" keeps a name with a colon from being an address.
  options = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(_CONTAINERS.split()),
    "max_pixels": str(MAX_SIDE**2),
  }
  with av.open(
    f"file:{path}", options=options, metadata_errors="replace"
  ) as container:
    stream = container.streams.best("video")
    if stream is None or av.stream.Disposition.attached_pic in (
      stream.disposition
    ):
      raise UserError(f"--stream: {path} holds no video")
    if stream.codec_context is None:
      raise UserError(f"--stream: {path} is of a codec that is not known")
    stream.codec_context.options = {"max_pixels": str(MAX_SIDE**2)}
    yield container, stream


def demux(container, *streams) -> Iterator[av.Packet]:
  """Yields the packets that hold something, past those that are broken."""
  for _ in range(_MAX_FAILURES):
    try:
      yield from (packet for packet in container.demux(*streams) if packet.size)
      return
    except (av.FFmpegError, IndexError):  # or of a stream that came up late
      continue


def scan(path: pathlib.Path) -> tuple[Head, Packets]:
  """Reads the whole file, without decoding."""
  # A number each: lists of objects would take gigabytes of the longest files.
  stamps, holes = array.array("q"), array.array("q")
  keys, shown = bytearray(), bytearray()
  end = 0
  with open_file(path) as (container, stream):
    codec = stream.codec_context.name
    for packet in demux(container):
      begin = end if packet.pos is None else packet.pos
      if packet.stream_index == stream.index:
        is_shown = not packet.is_discard and not (
          codec == "vp8" and not memoryview(packet)[0] & _VP8_SHOWN
        )
        # Each image of an APNG is called a key, but is drawn over the last.
        is_key = packet.is_keyframe and not (codec == "apng" and stamps)
        stamps.append(NO_STAMP if packet.pts is None else packet.pts)
        keys.append(is_key)
        shown.append(is_shown)
        holes.append(max(begin - end, 0))
        if len(stamps) > _MAX_PACKETS:
          raise UserError(
            f"--stream: {path} has more than {_MAX_PACKETS} frames; cut it"
          )
      end = max(end, begin + packet.size)
    head = Head(
      format=container.format.name,
      time_base=stream.time_base or fractions.Fraction(0),
      fps=float(stream.average_rate or 0),
    )
    side = max(stream.codec_context.height, stream.codec_context.width)
    if side > MAX_SIDE:
      raise UserError(
        f"--stream: {path} has frames of {side} pixels a side; at most "
        f"{MAX_SIDE} are read"
      )
  if not stamps:
    raise UserError(f"--stream: {path} holds no frames")
  return head, Packets(
    *(np.array(stamps), np.frombuffer(keys, bool)),
    *(np.frombuffer(shown, bool), np.array(holes)),
  )
