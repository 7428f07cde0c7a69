"""Messages of an enemy, made of those of a friend."""

import struct
import zlib

HEAD_BYTES = 9  # magic, version, CRC32

# A Hello as version 1 of the protocol had it.
FIRST_HELLO = bytes.fromhex(
  "4f4a445701004f0000000000000000000000000000000000000000010203040506070809"
  "0a0b0c0d0e0f000000000000000000000000000000000000000000000000020003000000"
  "00000000244000060001706572736f6e01c5d6cd91"
)


def signed(data: bytes) -> bytes:
  """The bytes of a message whose checksum is made right."""
  start, body = data[:5], data[HEAD_BYTES:]
  checksum = zlib.crc32(body, zlib.crc32(start))
  return start + struct.pack("<I", checksum) + body


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
