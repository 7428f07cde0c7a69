"""What a message may ask of its reader, and what it hears otherwise."""

import zlib
from typing import NamedTuple


class WireError(ValueError):
  """What came is no message, or what should go cannot be one: one line."""


class Limits(NamedTuple):
  """What a message may make its reader allocate."""

  max_bytes: int = 1 << 26  # of a message
  max_coords: int = 1 << 26  # of all weights together, less than 2**31
  max_frames: int = 1 << 12  # in a message


LIMITS = Limits()


def inflate(packed: bytes, size: int, wbits: int) -> bytes:
  """Exactly `size` bytes from a zlib stream, however many it would give.

  Raises:
    WireError: it gives another number, or is damaged, cut off or followed.
  """
  unpacker = zlib.decompressobj(wbits)
  try:
    # A byte more shows a stream that goes on; 0 would be no limit at all.
    raw = unpacker.decompress(packed, size + 1)
  except zlib.error as error:
    raise WireError(f"it cannot be unpacked ({error})") from None
  if len(raw) != size or not unpacker.eof or unpacker.unused_data:
    raise WireError(f"it does not unpack to {size} bytes")
  return raw
