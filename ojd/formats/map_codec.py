"""A label map <-> few bytes, exactly: each pixel is guessed from four others.

Of a pixel the one to the left (w) and three of the row above (nw, n, ne) are
known before it; outside the map all are 0. Where the four are equal the pixel
nearly always is too: only the exceptions are stored, each as the number of
pixels since the last one and its value. Elsewhere three bits at most say
whether the pixel is n, else w, else ne; else its value is stored. These bits
are sorted by which neighbours are equal, so that a bit stands among others of
the same odds, and zlib does the rest. Dense street scenes take two thirds of
the best that zlib, bz2 or lzma make of the map itself.
"""

import itertools
import struct

import numpy as np

MAX_PIXELS = 1 << 26
_UNIFORM = 7  # the context in which all four are equal
_COUNTS = struct.Struct("<8I")  # pixels in the other contexts; exceptions


def encode(values: np.ndarray) -> bytes:
  """The bytes of a map before compression; they contain their length.

  Args:
    values: [H, W] uint8.
  """
  w, nw, n, ne = _neighbours(values)
  context = _context(w, nw, n, ne)
  is_uniform = context == _UNIFORM
  expected, found = n[is_uniform], values[is_uniform]
  exceptions = np.flatnonzero(found != expected)
  gaps = np.diff(exceptions, prepend=-1) - 1

  context = context[~is_uniform]
  order = np.argsort(context, kind="stable")
  found_elsewhere = values[~is_uniform][order]
  bits, rest = [], np.arange(len(order))
  for guess in (n, w, ne):  # each for the pixels that those before missed
    is_hit = found_elsewhere[rest] == guess[~is_uniform][order[rest]]
    bits.append(is_hit)
    rest = rest[~is_hit]
  counts = np.bincount(context, minlength=_UNIFORM)
  parts = [
    _COUNTS.pack(*counts, len(gaps)),
    gaps.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes(),
    np.packbits(np.concatenate(bits)).tobytes(),
    found[exceptions].tobytes(),
    found_elsewhere[rest].tobytes(),
  ]
  return b"".join(parts)


def max_bytes(height: int, width: int) -> int:
  """More than `encode` makes of any map of this size."""
  return _COUNTS.size + 6 * height * width + 8


def decode(
  data: bytes, height: int, width: int, start: int = 0
) -> tuple[np.ndarray, int]:
  """The map that begins at `start`, and where it ends.

  Raises:
    ValueError: there is no map of this size.
    struct.error: nor are there enough bytes.
  """
  *counts, num_gaps = _COUNTS.unpack_from(data, start)
  if sum(counts) + num_gaps > height * width:
    raise ValueError(f"{sum(counts)} and {num_gaps} of {height * width} pixels")
  reader = _Reader(data, start + _COUNTS.size)
  gaps = reader.take(4 * num_gaps).reshape(4, -1).T.copy().view("<u4")
  symbols = _read_symbols(reader, sum(counts))
  news = reader.take(num_gaps)
  is_new = symbols == 3
  symbols[is_new] += reader.take(np.count_nonzero(is_new))
  ends = np.cumsum(counts)[:-1]
  streams = [iter(part.tolist()) for part in np.split(symbols, ends)]
  exceptions = zip(gaps.ravel().tolist(), news.tolist(), strict=True)
  try:
    pixels = _fill(height, width, streams, exceptions)
  except StopIteration:
    raise ValueError("it ends before its last row") from None
  values = np.frombuffer(pixels, np.uint8).reshape(height, width)
  return values, reader.position


def _neighbours(values):
  height, width = values.shape
  padded = np.zeros((height + 1, width + 2), np.uint8)
  padded[1:, 1:-1] = values
  above = padded[:-1]
  return padded[1:, :-2], above[:, :-2], above[:, 1:-1], above[:, 2:]


def _context(w, nw, n, ne):
  """Which neighbours are equal, 0 to 7."""
  context = (nw == w).view(np.uint8)
  context |= (nw == n).view(np.uint8) << 1
  context |= (ne == n).view(np.uint8) << 2
  return context


class _Reader:
  """Takes arrays of bytes one after the other."""

  def __init__(self, data, position):
    self._data, self.position = data, position

  def take(self, num):
    end = self.position + int(num)
    if end > len(self._data):
      raise ValueError("it is cut off")
    part = np.frombuffer(self._data, np.uint8, int(num), self.position)
    self.position = end
    return part


def _read_symbols(reader, num):
  """By context: 0 n, 1 w, 2 ne, 3 none of them; [num] uint16."""
  symbols, rest = np.zeros(num, np.uint16), np.arange(num)
  start, packed = 0, np.zeros(0, np.uint8)
  for _ in range(3):
    end = start + len(rest)
    more = reader.take(-(-end // 8) - len(packed))
    packed = np.concatenate([packed, more])
    bits = np.unpackbits(packed, count=end)[start:]
    rest = rest[bits == 0]
    symbols[rest] += 1
    start = end
  return symbols


def _fill(height, width, streams, exceptions):
  """Undoes `encode`, a pixel at a time where pixels are not uniform.

  Args:
    height: of the map.
    width: of the map.
    streams: by context, an iterator over symbols; from 3 on, 3 + value.
    exceptions: iterator over pairs of gap and value.

  Returns:
    height * width bytes. StopIteration where there is too little.
  """
  pixels, above = bytearray(), bytearray(width + 2)
  exceptions = itertools.chain(exceptions, [(height * width, 0)])  # a last gap
  gap, new = next(exceptions)
  for _ in range(height):
    row = above[:]
    changes = np.diff(np.frombuffer(above, np.uint8)) != 0
    # The 1 at the end stops every search.
    is_busy = (changes[:-1] | changes[1:]).tobytes() + b"\1"
    x = 0
    while x < width:
      w, nw = row[x], above[x]  # the map begins at 1
      if w == nw and not is_busy[x]:
        run = is_busy.find(1, x) - x
        if gap >= run:
          gap -= run
          x += run
          continue
        x += gap
        value = new
        gap, new = next(exceptions)
      else:
        n, ne = above[x + 1], above[x + 2]
        symbol = next(streams[(nw == w) + 2 * (nw == n) + 4 * (ne == n)])
        value = (n, w, ne)[symbol] if symbol < 3 else symbol - 3
      x += 1
      row[x] = value
    pixels += row[1:-1]
    above = row
  if any(next(x, None) is not None for x in (*streams, exceptions)):
    raise ValueError("it goes on after its last row")
  return pixels
