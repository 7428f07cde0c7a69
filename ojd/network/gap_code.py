"""Ascending places <-> few bytes, by the gaps between them.

A gap up to 15 is a symbol; a longer one is one of four symbols an octave, and
the bits that say where in that quarter it lies are stored as they are. The
symbols are coded (`rans`) by a table that goes with them, or by one of several:
that of the octave in which the gaps before have been. On a random mask the gaps
are independent and one table is about a hundredth above the entropy. A mask
that is dense in places takes half of what one so dense throughout would, and
the tables of octaves save up to a tenth of that.

The places are cut into L lanes of neighbours, decoded side by side.
"""

import struct
import zlib

import numpy as np

from ojd.network import rans
from ojd.network.limits import WireError, inflate

MAX_PLACE = (1 << 31) - 1
_MAX_LANES = 512
_PLACES_PER_LANE = 512  # a lane costs two bytes
# How fast the tables follow the gaps, as a shift; 0: one table for all.
_PACES = (0, 1, 3)
_NUM_TABLES = 32
_HEAD = struct.Struct("<BH")  # pace, bytes of the tables

_QUARTERS = np.arange(rans.MAX_SYMBOLS - 16)
_WIDTHS = np.r_[np.zeros(16, np.int64), 2 + _QUARTERS // 4]  # bits stored plain
_BASES = np.r_[np.arange(16), (4 + _QUARTERS % 4) << (2 + _QUARTERS // 4)]
# An eighth of an octave: log2 of a gap + 1. A symbol that is none has one too,
# for it is only found out in the end.
_LEVELS = np.zeros(rans.UNUSED + 1, np.int64)
_LEVELS[:16] = (0, 8, 13, 16, 19, 21, 22, 24, 25, 27, 28, 29, 30, 30, 31, 32)
_LEVELS[16 : rans.MAX_SYMBOLS] = 34 + 2 * _QUARTERS
_FINE = 4  # bits after the point in an average of levels
_FIRST = 24 << _FINE


def encode(places: np.ndarray) -> bytes:
  """The bytes of ascending places, [K] integers from 0 to MAX_PLACE."""
  gaps = np.diff(places.astype(np.int64), prepend=-1) - 1
  order, num_lanes = _order(len(gaps))
  symbols = np.searchsorted(_BASES, gaps, side="right") - 1
  coded = symbols[order]
  pace, tables, freqs = _best_tables(coded, num_lanes)
  lanes, words = rans.encode(coded, tables, freqs, num_lanes)
  packed = _pack_tables(freqs)
  parts = [
    _HEAD.pack(pace, len(packed)),
    packed,
    lanes.astype("<u4").tobytes(),
    words.astype("<u2").tobytes(),
    _pack_rests(gaps - _BASES[symbols], _WIDTHS[symbols]),
  ]
  return b"".join(parts)


def decode(data: bytes, num_places: int) -> np.ndarray:
  """The places again, [K] int64.

  Raises:
    WireError: these are not the bytes of so many places, or not of them alone.
  """
  if len(data) < _HEAD.size:
    raise WireError("the mask is cut off")
  pace, num_packed = _HEAD.unpack_from(data)
  if pace not in _PACES:
    raise WireError(f"the mask has a pace of {pace}")
  begin = _HEAD.size + num_packed
  freqs = _unpack_tables(data[_HEAD.size : begin], pace)
  order, num_lanes = _order(num_places)
  end = begin + 4 * num_lanes
  if len(data) < end:
    raise WireError("the mask is cut off")
  lanes = np.frombuffer(data, "<u4", num_lanes, begin)
  words = np.frombuffer(data, "<u2", (len(data) - end) // 2, end)
  chooser = _Chooser(pace, num_lanes)
  coded, num_words = rans.decode(lanes, words, freqs, num_places, chooser)
  symbols = np.empty(num_places, np.int64)
  symbols[order] = coded
  rests = _unpack_rests(data[end + 2 * num_words :], _WIDTHS[symbols])
  return np.cumsum(_BASES[symbols] + rests + 1) - 1


def _order(num):
  """The coded order of places, a step of all lanes after the other, and L."""
  num_lanes = min(max(num // _PLACES_PER_LANE, 1), _MAX_LANES)
  size, num_longer = divmod(num, num_lanes)
  lane = np.arange(num_lanes)
  starts = lane * size + np.minimum(lane, num_longer)
  grid = starts + np.arange(size + 1)[:, None]
  return grid.ravel()[:num], num_lanes


class _Chooser:
  """Follows the gaps of each lane: in which octave have they been?"""

  def __init__(self, pace, num_lanes):
    self._pace = pace
    self._average = np.full(num_lanes, _FIRST)  # of levels

  def __call__(self, symbols):
    if not self._pace:
      return np.zeros_like(self._average)
    if symbols is not None:
      levels = _LEVELS[symbols] << _FINE
      self._average += (levels - self._average) >> self._pace
    return np.minimum(self._average >> (_FINE + 3), _NUM_TABLES - 1)


def _best_tables(coded, num_lanes):
  """(pace, table of each symbol, frequencies) that take the fewest bytes."""
  choices = []
  for pace in _PACES:
    tables = _follow(coded, num_lanes, pace)
    where = tables * rans.MAX_SYMBOLS + coded
    size = _num_tables(pace) * rans.MAX_SYMBOLS
    counts = np.bincount(where, minlength=size).reshape(-1, rans.MAX_SYMBOLS)
    freqs = rans.quantise(counts)
    is_met = counts > 0
    bits = -counts[is_met] @ np.log2(freqs[is_met] / rans.SLOTS)
    cost = bits / 8 + len(_pack_tables(freqs))
    choices.append((cost, pace, tables, freqs))
  return min(choices, key=lambda choice: choice[:2])[1:]


def _follow(coded, num_lanes, pace):
  """The tables of all symbols, [K] int64."""
  chooser, got = _Chooser(pace, num_lanes), None
  tables = np.zeros(len(coded), np.int64)
  for begin in range(0, len(coded) if pace else 0, num_lanes):
    step = slice(begin, begin + num_lanes)
    tables[step] = chooser(got)[: len(coded) - begin]
    got = coded[step]
  return tables


def _num_tables(pace):
  return _NUM_TABLES if pace else 1


def _pack_tables(freqs):
  # The high bytes are mostly 0, and go apart.
  planes = freqs.astype("<u2").view(np.uint8).reshape(-1, 2).T.tobytes()
  packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
  return packer.compress(planes) + packer.flush()


def _unpack_tables(packed, pace):
  num_tables = _num_tables(pace)
  size = 2 * num_tables * rans.MAX_SYMBOLS
  planes = np.frombuffer(inflate(packed, size, -zlib.MAX_WBITS), np.uint8)
  freqs = planes.reshape(2, -1).T.copy().view("<u2").astype(np.int64)
  freqs = freqs.reshape(num_tables, rans.MAX_SYMBOLS)
  if not np.isin(freqs.sum(1), (0, rans.SLOTS)).all():
    raise WireError("the tables of the mask do not add up")
  return freqs


def _pack_rests(rests, widths):
  """The bits stored plain, by their number; each number begins a byte."""
  parts = []
  for width in np.unique(widths[widths > 0]):
    bits = rests[widths == width, None] >> np.arange(width)
    parts.append(np.packbits((bits & 1).astype(np.uint8)).tobytes())
  return b"".join(parts)


def _unpack_rests(data, widths):
  rests, begin = np.zeros(len(widths), np.int64), 0
  for width in np.unique(widths[widths > 0]):
    where = np.flatnonzero(widths == width)
    num_bits = len(where) * int(width)
    end = begin + -(-num_bits // 8)
    packed = np.frombuffer(data[begin:end], np.uint8)
    bits = np.unpackbits(packed)
    if len(bits) < num_bits:
      raise WireError("the mask is cut off")
    bits = bits[:num_bits].reshape(-1, width)
    rests[where] = bits @ (1 << np.arange(width))
    begin = end
  if begin != len(data):
    raise WireError("something follows the mask")
  return rests
