"""Which frame of a video file is which: the stamps of its packets, in order.

A frame's index is the rank of its presentation stamp among those of all
packets, so that a frame that cannot be decoded leaves its place empty and
those after it keep theirs. Where stamps do not tell the frames apart (AVI has
none, raw H.264 neither), the frames are counted as they are decoded.
"""

import fractions
from typing import NamedTuple

import numpy as np

from ojd.streams.video_file import NO_STAMP, Head, Packets

_MIN_TIMED = 0.9  # of the packets, from which on stamps tell the frames apart
NUM_PROBED = 8  # packets decoded when a file is opened
_MAX_LOST = 100_000  # frames in a row; a longer gap is no damage
_HOLE_BYTES = 64  # more than lies between two packets of a whole file
_MAX_REORDER = 16  # places between a packet and where its frame is shown


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
  is_timed: bool  # whether a decoded frame's stamp tells which one it is

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
    the packets do not tell it.
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
