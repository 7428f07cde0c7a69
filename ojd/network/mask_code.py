"""Which coordinates of all are meant <-> bytes.

BITMAP is a bit a coordinate, each array of weights padded to a byte; GZIP is
that, compressed as hard as gzip can: what Adaptive Model Streaming sends, and a
quarter above the entropy of a random twentieth. GAPS (`gap_code`) stores the
coordinates that are meant, or those that are not where they are fewer, and is
about a hundredth above it. Where the mask is a pattern that repeats, GZIP may
still be the smaller. It is not even tried in earnest, for that takes a second,
where a first try finds nothing.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from ojd.network import gap_code
from ojd.network.limits import WireError, inflate

BITMAP, GZIP, GAPS = "bitmap", "bitmap_gzip", "gaps"
CODES = (BITMAP, GZIP, GAPS)
_GZIP_WBITS = 16 + zlib.MAX_WBITS


def encode(
  mask: np.ndarray, sizes: Sequence[int], code: str | None = None
) -> tuple[str, bytes]:
  """The code, the one asked for or the smallest, and the bytes.

  Args:
    mask: [P] bool.
    sizes: of the arrays of weights, P together.
    code: of CODES; None for the smallest.
  """
  if code == GAPS:
    return code, gap_code.encode(np.flatnonzero(mask ^ _is_dense(mask)))
  packed = _pack(mask, sizes)
  if code == GZIP:
    return code, _gzip(packed, 9)
  if code == BITMAP:
    return code, packed
  size, code, data = min(
    (len(data), code, data)
    for code, data in ((BITMAP, packed), encode(mask, sizes, GAPS))
  )
  if len(_gzip(packed, 1)) < size:
    return GZIP, _gzip(packed, 9)
  return code, data


def decode(
  data: bytes, sizes: Sequence[int], num_chosen: int, code: str
) -> np.ndarray:
  """The coordinates that are meant, ascending, [num_chosen] int64.

  Raises:
    WireError: these are not the bytes of so many of so many coordinates.
  """
  num_coords = sum(sizes)
  if num_chosen > num_coords:
    raise WireError(f"a mask of {num_chosen} among {num_coords} coordinates")
  if code == GAPS:
    return _decode_gaps(data, num_coords, num_chosen)
  if code == GZIP:
    data = inflate(data, _num_bytes(sizes), _GZIP_WBITS)
  chosen = np.flatnonzero(_unpack(data, sizes))
  if len(chosen) != num_chosen:
    raise WireError(f"a mask of {len(chosen)} coordinates, not {num_chosen}")
  return chosen


def _gzip(packed, level):
  packer = zlib.compressobj(level, wbits=_GZIP_WBITS)
  return packer.compress(packed) + packer.flush()


def _is_dense(mask):
  return 2 * np.count_nonzero(mask) > len(mask)


def _decode_gaps(data, num_coords, num_chosen):
  is_dense = 2 * num_chosen > num_coords
  num_places = num_coords - num_chosen if is_dense else num_chosen
  places = gap_code.decode(data, num_places)
  if num_places and places[-1] >= num_coords:
    raise WireError(f"coordinate {places[-1]} of {num_coords}")
  if not is_dense:
    return places
  mask = np.ones(num_coords, bool)
  mask[places] = False
  return np.flatnonzero(mask)


def _num_bytes(sizes):
  return sum(-(-size // 8) for size in sizes)


def _pack(mask, sizes):
  parts = np.split(mask, np.cumsum(sizes)[:-1])
  return b"".join(np.packbits(part).tobytes() for part in parts)


def _unpack(data, sizes):
  if len(data) != _num_bytes(sizes):
    raise WireError(f"a mask of {len(data)} bytes, not {_num_bytes(sizes)}")
  packed, begin, parts = np.frombuffer(data, np.uint8), 0, []
  for size in sizes:
    end = begin + -(-size // 8)
    bits = np.unpackbits(packed[begin:end])
    if bits[size:].any():
      raise WireError("the mask goes on after an array's end")
    parts.append(bits[:size].view(bool))
    begin = end
  return np.concatenate(parts) if parts else np.zeros(0, bool)
