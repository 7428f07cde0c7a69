"""Video files, read without decoding: which frame is which.

No other file is opened through a video file. A frame's index is the rank of its
presentation stamp among those of all packets, so that a frame that cannot be
decoded leaves its place empty and those after it keep theirs. Where stamps do
not identify the frames (AVI has none, raw H.264 neither), the frames are
counted as they are decoded.
"""

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
_MIN_TIMED = 0.9  # of the packets, from which on stamps identify the frames
NUM_PROBED = 8  # packets decoded when a file is opened
_MAX_LOST = 100_000  # frames in a row; a longer gap is no damage
_HOLE_BYTES = 64  # more than lies between two packets of a whole file
_MAX_REORDER = 16  # places between a packet and where its frame is shown


class Packets(NamedTuple):
  """One entry for each packet, in the order of the file; [P] each."""

  pts: np.ndarray  # int64
  is_key: np.ndarray  # bool
  is_shown: np.ndarray  # bool
  hole: np.ndarray  # int64, bytes before it that belong to no packet


class Head(NamedTuple):
  """The metadata of the container."""

  format: str
  time_base: fractions.Fraction
  fps: float  # 0 where it does not say


class Key(NamedTuple):
  """Stamps of a key frame to decode from, and of one before it to seek to."""

  pts: int
  earlier: int


class Index(NamedTuple):
  """The frames of a file in the order of their presentation, [T] each."""

  packets: Packets
  pts: np.ndarray  # int64; empty where the packets have no stamps
  is_key: np.ndarray  # bool
  is_hole: np.ndarray  # bool, its packet is lost
  time_base: fractions.Fraction
  is_timed: bool  # whether a decoded frame's stamp identifies it

  def rank(self, pts: int | None) -> int | None:
    """The index of the frame with this stamp."""
    if pts is None:
      return None
    t = int(np.searchsorted(self.pts, pts))
    return t if t < len(self.pts) and self.pts[t] == pts else None

  def seconds(self, t: int) -> float | None:
    """Time of frame t after the first, None where it has no stamp."""
    if t >= len(self.pts):
      return None
    return float((int(self.pts[t]) - int(self.pts[0])) * self.time_base)

  def key_before(self, t: int) -> Key | None:
    """The key frame to decode from for frame t; None: the file's start."""
    if t >= len(self.pts):
      return None
    pts = self.packets.pts
    highest = np.maximum.accumulate(pts)
    # All that lies before the key frame must also be shown before frame t.
    is_good = self.packets.is_key & (pts <= self.pts[t]) & (pts != NO_STAMP)
    is_good[1:] &= highest[:-1] < self.pts[t]
    good = np.flatnonzero(is_good)
    if len(good) < 2 or np.count_nonzero(pts == pts[good[-1]]) > 1:
      return None
    return Key(int(pts[good[-1]]), int(pts[good[-2]]))


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


def make_index(head: Head, packets: Packets) -> Index:
  """Ranks the stamps of the frames that are to be shown."""
  has_stamp = packets.is_shown & (packets.pts != NO_STAMP)
  places = np.flatnonzero(has_stamp)
  whole, firsts = np.unique(packets.pts[has_stamp], return_index=True)
  is_timed = len(whole) >= _MIN_TIMED * max(packets.is_shown.sum(), 1)
  if not (is_timed and head.time_base):
    nothing = np.zeros(0, bool)
    return Index(packets, whole[:0], *[nothing] * 2, head.time_base, False)
  places = places[firsts]
  lost = _find_lost(whole, places, packets.hole)
  pts = np.sort(np.concatenate([whole, lost]))
  is_key = np.zeros(len(pts), bool)
  is_key[np.searchsorted(pts, whole)] = packets.is_key[places]
  # The stamps of AVI number its packets, which may lie in another order.
  is_timed = head.format != "avi" or bool(is_key.all())
  is_hole = np.isin(pts, lost)
  return Index(packets, pts, is_key, is_hole, head.time_base, is_timed)


def compare(
  index: Index, stamps: list[int | None], is_whole: bool
) -> tuple[Index, int | None]:
  """Fits the index to what the first NUM_PROBED packets give.

  Args:
    index: of the packets.
    stamps: of the frames decoded from them.
    is_whole: whether they were decoded without a problem.

  Returns:
    The index without frames that cannot be decoded because the file begins
    after the key frame that they need; and the number of frames, None where
    the packets do not say it.
  """
  packets = index.packets
  num_expected = np.count_nonzero(packets.is_shown[:NUM_PROBED])
  if index.is_timed:
    ranks = [index.rank(pts) for pts in stamps]
    is_ordered = None not in ranks and ranks == sorted(set(ranks))
    keys = index.pts[index.is_key]
    known = [*keys[:1].tolist(), *(pts for pts in stamps if pts is not None)]
    first = min(known, default=index.pts[0])
    is_late = packets.pts >= first
    num_expected = np.count_nonzero((packets.is_shown & is_late)[:NUM_PROBED])
    from_first = slice(int(np.searchsorted(index.pts, first)), None)
    index = index._replace(
      pts=index.pts[from_first],
      is_key=index.is_key[from_first],
      is_hole=index.is_hole[from_first],
      is_timed=is_ordered,
    )
  # Interlaced video may have a packet for each of a frame's two fields.
  if is_whole and len(stamps) < 0.75 * num_expected:
    return index._replace(pts=index.pts[:0], is_timed=False), None
  if index.is_timed:
    return index, len(index.pts)
  return index, int(np.count_nonzero(packets.is_shown))


def _find_lost(pts, places, hole):
  """Stamps of frames whose packets are gone, in a file of constant rate.

  Time is missing, and so are bytes: the first alone may be a pause.
  """
  steps = np.diff(pts.astype(np.float64))
  if not len(steps):
    return pts[:0]
  step = np.median(steps)
  if np.mean(np.abs(steps - step) <= max(1, 0.1 * step)) < _MIN_TIMED:
    return pts[:0]
  missing = np.cumsum(np.where(hole > _HOLE_BYTES, hole, 0))
  lost = []
  for i in np.flatnonzero(steps > 1.5 * step):
    num = round(steps[i] / step)
    near = places[i : i + 2] + [-_MAX_REORDER, _MAX_REORDER]
    begin, end = np.clip([near.min(), near.max()], 0, len(hole) - 1)
    num_bytes = missing[end] - missing[begin]
    if num - 1 <= min(num_bytes, _MAX_LOST):
      lost.append(np.linspace(pts[i], pts[i + 1], num + 1)[1:-1])
  if not lost:
    return pts[:0]
  return np.setdiff1d(np.rint(np.concatenate(lost)).astype(np.int64), pts)
