"""What taking a message apart and checking it is made of."""

import math
import struct

from ojd.network.limits import WireError


class Reader:
  """Takes a body apart from its beginning."""

  def __init__(self, data: bytes):
    self._data, self._position = data, 0

  def take(self, num: int) -> bytes:
    """The next bytes."""
    end = self._position + num
    if end > len(self._data):
      raise WireError("the message is cut off")
    part = self._data[self._position : end]
    self._position = end
    return part

  def unpack(self, numbers: struct.Struct) -> tuple:
    """The next numbers."""
    return numbers.unpack(self.take(numbers.size))

  def rest(self) -> bytes:
    """All that is left."""
    return self.take(len(self._data) - self._position)


def check_bytes(name, value, size):
  if len(value) != size:
    raise WireError(f"a {name} of {len(value)} bytes, not {size}")


def check_number(name, value, least=0.0):
  if not (math.isfinite(value) and value >= least):
    raise WireError(f"a {name} of {value}")


def name_of(names, number):
  if number >= len(names):
    raise WireError(f"number {number}, and {', '.join(names)} are known")
  return names[number]
