"""A mask of coordinates <-> bytes.

GZIP is a bit for each coordinate, each array of weights padded to a byte,
compressed at gzip's best level, as in Adaptive Model Streaming. On a random
mask of a twentieth it is a quarter above the entropy.

GAPS stores the distances between the chosen coordinates, or between the others
if those are fewer. It is a Rice code whose quotients zlib
codes by their frequencies: the low bits of a gap, which are near uniform, are
stored as they are. On a random mask it is about a hundredth above the entropy
up to a density of 0.3, and GZIP is so from there on.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from ojd.network.messages import GAPS, GZIP, WireError

CODES = (GZIP, GAPS)
_GZIP_WBITS, _RAW_WBITS = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_ESCAPE = 255  # of a quotient: so much, and what the next byte says
_QUOTIENT_BITS = 5  # of the mean quotient, about
_MEM_LEVEL = 9  # the most: blocks of 32K symbols have a table each


def encode(
  mask: np.ndarray, sizes: Sequence[int], code: str | None = None
) -> tuple[str, bytes]:
  """The code, the one asked for or the smallest, and the bytes.

  Args:
    mask: [P] bool.
    sizes: of the arrays of weights, P together.
    code: of CODES; None for the smallest.
  """
  if code == GZIP:
    return code, _gzip(_pack_bits(mask, sizes), 9)
  is_dense = 2 * np.count_nonzero(mask) > len(mask)
  data = _encode_gaps(np.flatnonzero(mask ^ is_dense), len(mask))
  if code == GAPS:
    return code, data
  packed = _pack_bits(mask, sizes)
  # The hardest compression takes a second; a first try shows if it is worth it.
  if len(_gzip(packed, 1)) < 1.02 * len(data):
    zipped = _gzip(packed, 9)
    if len(zipped) < len(data):
      return GZIP, zipped
  return GAPS, data


def decode(
  data: bytes, sizes: Sequence[int], num_chosen: int, code: str
) -> np.ndarray:
  """The chosen coordinates, ascending, [num_chosen] int64.

  Its memory depends on the number of coordinates, not on the bytes.

  Raises:
    WireError: the bytes do not fit these numbers of coordinates.
  """
  num_coords = sum(sizes)
  if num_chosen > num_coords:
    raise WireError(f"a mask of {num_chosen} among {num_coords} coordinates")
  if code == GAPS:
    is_dense = 2 * num_chosen > num_coords
    num_places = num_coords - num_chosen if is_dense else num_chosen
    places = _decode_gaps(data, num_places, num_coords)
    return np.delete(np.arange(num_coords), places) if is_dense else places
  chosen = np.flatnonzero(_unpack_bits(data, sizes))
  if len(chosen) != num_chosen:
    raise WireError(f"a mask of {len(chosen)} coordinates, not {num_chosen}")
  return chosen


def _encode_gaps(places, num_coords):
  """The low bits of all gaps, and the deflated quotients."""
  gaps = np.diff(places, prepend=-1) - 1
  shift = _shift(len(places), num_coords)
  low_bits = (gaps[:, None] >> np.arange(shift)) & 1
  num_escapes, last = np.divmod(gaps >> shift, _ESCAPE)
  ends = np.cumsum(num_escapes + 1) - 1
  quotients = np.full(len(gaps) + num_escapes.sum(), _ESCAPE, np.uint8)
  quotients[ends] = last
  packer = zlib.compressobj(
    9, zlib.DEFLATED, _RAW_WBITS, _MEM_LEVEL, zlib.Z_HUFFMAN_ONLY
  )
  packed = packer.compress(quotients.tobytes()) + packer.flush()
  return np.packbits(low_bits.astype(np.uint8)).tobytes() + packed


def _decode_gaps(data, num_places, num_coords):
  shift = _shift(num_places, num_coords)
  num_low = -(-num_places * shift // 8)
  low_bits = np.frombuffer(data[:num_low], np.uint8)
  if len(low_bits) < num_low:
    raise WireError("the mask is cut off")
  low_bits = np.unpackbits(low_bits, count=num_places * shift)
  low = low_bits.reshape(num_places, shift) @ (1 << np.arange(shift))
  most = num_places + (num_coords >> shift) // _ESCAPE
  quotients = _inflate(data[num_low:], most, _RAW_WBITS)
  quotients = np.frombuffer(quotients, np.uint8)
  ends = np.flatnonzero(quotients != _ESCAPE)
  num_used = ends[-1] + 1 if len(ends) else 0
  if (len(ends), num_used) != (num_places, len(quotients)):
    raise WireError(f"a mask of other than {num_places} gaps")
  quotient = _ESCAPE * (np.diff(ends, prepend=-1) - 1) + quotients[ends]
  places = np.cumsum((quotient << shift) + low + 1) - 1
  if num_places and places[-1] >= num_coords:
    raise WireError(f"coordinate {places[-1]} of {num_coords}")
  return places


def _shift(num_places, num_coords):
  """The number of low bits of a gap that are stored unchanged."""
  mean = int(num_coords // max(num_places, 1))
  return max(mean.bit_length() - _QUOTIENT_BITS, 0) if num_places else 0


def _gzip(packed, level):
  packer = zlib.compressobj(level, wbits=_GZIP_WBITS)
  return packer.compress(packed) + packer.flush()


def _inflate(packed, most, wbits):
  """The content of a zlib stream of at most `most` bytes."""
  unpacker = zlib.decompressobj(wbits)
  try:
    # A byte more shows a stream that goes on; 0 would be no limit at all.
    raw = unpacker.decompress(packed, most + 1)
  except zlib.error as error:
    raise WireError(f"a mask that cannot be unpacked ({error})") from None
  if len(raw) > most or not unpacker.eof or unpacker.unused_data:
    raise WireError(f"a mask that does not unpack to {most} bytes")
  return raw


def _pack_bits(mask, sizes):
  parts = np.split(mask, np.cumsum(sizes)[:-1])
  return b"".join(np.packbits(part).tobytes() for part in parts)


def _unpack_bits(data, sizes):
  """The mask of a zipped bitmap, [P] bool."""
  num_bytes = sum(-(-size // 8) for size in sizes)
  packed = np.frombuffer(_inflate(data, num_bytes, _GZIP_WBITS), np.uint8)
  if len(packed) != num_bytes:
    raise WireError(f"a mask that does not unpack to {num_bytes} bytes")
  begin, parts = 0, []
  for size in sizes:
    end = begin + -(-size // 8)
    bits = np.unpackbits(packed[begin:end])
    if bits[size:].any():
      raise WireError("the mask goes on after an array's end")
    parts.append(bits[:size].view(bool))
    begin = end
  return np.concatenate(parts) if parts else np.zeros(0, bool)
