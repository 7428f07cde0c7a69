"""The units of an H.264 stream, checked before a decoder gets them.

A stream is a row of units, each behind a start code (Annex B of the standard).
Here a picture is one slice, of 8 bits and 4:2:0, and all are of one size: that
is what says how much memory and time a decoder needs.
"""

from collections.abc import Iterator

from ojd.network.messages import WireError

_START = b"\0\0\1"
_SLICE, _IDR, _SEQUENCE, _PICTURE = 1, 5, 7, 8
_IGNORED = (6, 9, 12)  # remarks, delimiters and filling
_MAX_UNITS = 8  # for each picture
_PROFILES = {66: "Baseline", 77: "Main", 100: "High"}
_HIGH = 100
_MAX_REFERENCES = 16
_MAX_CYCLE = 255


def split(data: bytes, num: int, height: int, width: int) -> list[bytes]:
  """One stream for each picture, with the parameters that come before it.

  Args:
    data: of the whole stream.
    num: pictures, 1 or more.
    height: of each, in pixels; even.
    width: likewise.

  Raises:
    WireError: it is no such stream.
  """
  pictures, ahead = [], []
  for unit in _units(data, most=_MAX_UNITS * num):
    kind = unit[0] & 31
    if kind == _SEQUENCE:
      _check_sequence(unit, height, width)
    elif kind in (_SLICE, _IDR):
      if len(unit) < 2 or not unit[1] >> 7:  # its first macroblock is no. 0
        raise WireError("a picture of several slices")
      if len(pictures) == num:
        raise WireError(f"more than {num} pictures")
      pictures.append(_join([*ahead, unit]))
      ahead = []
    elif kind != _PICTURE and kind not in _IGNORED:
      raise WireError(f"a unit of kind {kind} in an H.264 stream")
    if kind in (_SEQUENCE, _PICTURE):
      ahead.append(unit)
  if len(pictures) != num:
    raise WireError(f"{len(pictures)} pictures, not {num}")
  return pictures


def _units(data, most) -> Iterator[bytes]:
  begin, num = data.find(_START), 0
  if begin < 0 or data[:begin].strip(b"\0"):
    raise WireError("a clip that is no H.264 stream")
  while begin >= 0:
    begin += len(_START)
    end = data.find(_START, begin)
    # No unit ends in a zero: those belong to the next start code.
    unit = data[begin : end if end >= 0 else len(data)].rstrip(b"\0")
    if not unit or unit[0] >> 7:
      raise WireError("a damaged unit in an H.264 stream")
    num += 1
    if num > most:
      raise WireError(f"more than {most} units in an H.264 stream")
    yield unit
    begin = end


def _join(units):
  return b"".join(b"\0" + _START + unit for unit in units)


class _Bits:
  """Reads the numbers of a sequence's parameters."""

  def __init__(self, data):
    self._data, self.position = data, 0

  def take(self, num: int) -> int:
    """A number of so many bits."""
    end = self.position + num
    if end > 8 * len(self._data):
      raise WireError("the parameters of an H.264 stream are cut off")
    first, last = self.position // 8, -(-end // 8)
    value = int.from_bytes(self._data[first:last])
    self.position = end
    return value >> (8 * last - end) & ((1 << num) - 1)

  def count(self) -> int:
    """A number in an Exp-Golomb code."""
    num = 0
    while not self.take(1):
      num += 1
      if num > 31:
        raise WireError("a damaged number in an H.264 stream")
    return (1 << num) - 1 + self.take(num)


def _check_sequence(unit, height, width):
  """Raises a WireError unless its pictures are what they should be."""
  bits = _Bits(unit)
  bits.take(8)
  profile = bits.take(8)
  if profile not in _PROFILES:
    known = ", ".join(_PROFILES.values())
    raise WireError(f"H.264 of profile {profile}, and known are {known}")
  bits.take(16)
  bits.count()
  # Chroma format, two depths beyond eight bits, two flags.
  if profile == _HIGH:
    found = bits.count(), bits.count(), bits.count(), bits.take(2)
    if found != (1, 0, 0, 0):
      raise WireError("H.264 of other than plain 4:2:0 with 8 bits")
  _pass_order(bits)
  if bits.count() > _MAX_REFERENCES:
    raise WireError(f"more than {_MAX_REFERENCES} pictures to refer to")
  bits.take(1)
  blocks = [bits.count() + 1, bits.count() + 1]
  if not bits.take(1):
    raise WireError("H.264 with fields")
  bits.take(1)
  left, right, top, bottom = (
    (bits.count() for _ in range(4)) if bits.take(1) else (0, 0, 0, 0)
  )
  found = (
    16 * blocks[1] - 2 * (top + bottom),
    16 * blocks[0] - 2 * (left + right),
  )
  # So that all readers take the same bits for it: these zeros would begin an
  # escape, which a decoder may or may not take out.
  if b"\0\0" in unit[: -(-bits.position // 8)]:
    raise WireError("an escape in the parameters of an H.264 stream")
  if found != (height, width) or blocks != [-(-width // 16), -(-height // 16)]:
    raise WireError(
      f"H.264 of {found[0]}x{found[1]} pixels, not {height}x{width}"
    )


def _pass_order(bits):
  """Reads what says in which order pictures are shown."""
  bits.count()
  kind = bits.count()
  if kind == 0:
    bits.count()
  elif kind == 1:
    bits.take(1)
    bits.count()
    bits.count()
    num = bits.count()
    if num > _MAX_CYCLE:
      raise WireError("a damaged number in an H.264 stream")
    for _ in range(num):
      bits.count()
  elif kind != 2:
    raise WireError("a damaged number in an H.264 stream")
