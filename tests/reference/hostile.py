"""Messages of an enemy, made of those of a friend."""

import struct
import zlib

from ojd.network import wire


def signed(data: bytes) -> bytes:
  """The bytes of a message whose length and checksum are made right."""
  if len(data) < wire.HEAD_BYTES + 4:
    return data
  length = struct.pack("<I", len(data) - wire.HEAD_BYTES - 4)
  data = data[:6] + length + data[10:-4]
  return data + struct.pack("<I", zlib.crc32(data))


def _mutated(data, others, rng):
  """Bytes changed, cut out, put in, or the end of another message."""
  data = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    place = int(rng.integers(0, len(data) + 1))
    # Half of the time in the head and what follows it: there is more to break.
    if rng.random() < 0.5:
      place = min(place, int(rng.integers(4, 130)))
    num = int(rng.integers(1, 9))
    what = rng.integers(0, 4)
    if what == 0:
      data[place : place + num] = rng.bytes(min(num, len(data) - place))
    elif what == 1:
      del data[place : place + num]
    elif what == 2:
      data[place:place] = bytes([rng.integers(0, 256)]) * num
    else:
      other = others[rng.integers(0, len(others))]
      data[place:] = other[place:]
  return bytes(data)


def messages(valid, num, rng):
  """So many: most have a right checksum, some are nothing but noise."""
  for i in range(num):
    data = _mutated(valid[i % len(valid)], valid, rng)
    if i % 20 == 0:
      yield rng.bytes(rng.integers(0, 200))
    else:
      yield signed(data) if i % 4 else data
