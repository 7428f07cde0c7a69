"""Labels <-> few bytes, bit for bit.

The classes are a map. So are the weights where they take few values, as those
of boxes do: then a table of the values is stored, and a map of indices into it.
Where they are 0 on every ignored pixel the map need not say so, and boxes keep
their straight sides. All other weights are stored as they are.
"""

import struct
import zlib

import numpy as np

from ojd.formats import map_codec
from ojd.types import IGNORE, Labels

_MAX_VALUES = 16  # of weights, in a table
_MAX_SIDE = (1 << 16) - 1
_LEVEL = 6  # what 9 saves is nothing, and noise takes it a second
_HEAD = struct.Struct("<HHBB")  # height, width, values, is 0 where ignored


def encode(labels: Labels) -> bytes:
  """The bytes of labels, on the host or on a device.

  Raises:
    ValueError: these are not labels of one frame.
  """
  classes, weights = (np.asarray(x) for x in labels)
  _check(classes, weights)
  # Zeros, infinities and NaNs of any kind are told apart by their bits.
  bits = np.ascontiguousarray(weights, "<f4").view("<u4")
  is_ignored = classes == IGNORE
  is_cut = not bits[is_ignored].any()
  kept = bits[~is_ignored] if is_cut else bits.ravel()
  values = _distinct(kept)
  if values is None:
    is_cut, values = False, []
    packed = bits.view(np.uint8).reshape(-1, 4).T.tobytes()
  else:
    packed = _encode_indices(bits, values, is_ignored if is_cut else None)
  head = _HEAD.pack(*classes.shape, len(values), is_cut)
  table = np.array(values, "<u4").tobytes()
  packer = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
  body = packer.compress(map_codec.encode(classes) + packed) + packer.flush()
  return head + table + body


def decode(data: bytes) -> Labels:
  """The labels again, as arrays of their own.

  Raises:
    ValueError: these are the bytes of no labels, or not of them alone.
  """
  try:
    return _decode(data)
  except (struct.error, zlib.error) as error:
    raise ValueError(str(error)) from None


def _decode(data):
  height, width, num_values, is_cut = _HEAD.unpack_from(data)
  _check_size(height, width)
  if num_values > _MAX_VALUES or is_cut > 1:
    raise ValueError(f"{num_values} weights, {is_cut}")
  start = _HEAD.size + 4 * num_values
  values = np.frombuffer(data, "<u4", num_values, _HEAD.size)
  raw = _inflate(data[start:], 2 * map_codec.max_bytes(height, width))
  classes, end = map_codec.decode(raw, height, width)
  if num_values:
    indices, end = map_codec.decode(raw, height, width, end)
    bits = _look_up(values, indices)
  else:
    planes = np.frombuffer(raw, np.uint8, 4 * height * width, end)
    bits = planes.reshape(4, -1).T.copy().view("<u4").reshape(height, width)
    end += planes.size
  if end != len(raw):
    raise ValueError("something follows the weights")
  if is_cut:
    bits[classes == IGNORE] = 0
  return Labels(classes, bits.view("<f4"))


def _check(classes, weights):
  if classes.ndim != 2 or classes.dtype != np.uint8:
    raise ValueError(
      f"classes are [H, W] uint8, not {classes.shape} {classes.dtype}"
    )
  if weights.shape != classes.shape or weights.dtype != np.float32:
    raise ValueError(
      f"weights are {classes.shape} float32, not {weights.shape} "
      f"{weights.dtype}"
    )
  _check_size(*classes.shape)


def _check_size(height, width):
  is_side = 0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE
  if not is_side or height * width > map_codec.MAX_PIXELS:
    raise ValueError(f"labels of {height}x{width} pixels")


def _distinct(bits):
  """The values at hand; None if they are many."""
  values = []
  while bits.size:
    if len(values) == _MAX_VALUES:
      return None
    values.append(int(bits[0]))
    bits = bits[bits != bits[0]]
  # An order that does not depend on what stands in the corner.
  return sorted(values) or [0]


def _encode_indices(bits, values, is_ignored):
  indices = np.zeros(bits.shape, np.uint8)
  for i, value in enumerate(values[1:], 1):
    indices[bits == value] = i
  if is_ignored is not None and is_ignored.any():
    indices = _extend_right(indices, is_ignored)
  return map_codec.encode(indices)


def _extend_right(indices, is_hole):
  """Fills holes with what is to their left."""
  source = np.where(is_hole, 0, np.arange(indices.shape[1]))
  np.maximum.accumulate(source, axis=1, out=source)
  return np.take_along_axis(indices, source, axis=1)


def _look_up(values, indices):
  if indices.max() >= len(values):
    raise ValueError(f"weight {indices.max()} of {len(values)}")
  return values[indices]


def _inflate(packed, most):
  """Unpacks at most `most` bytes, however many there are."""
  unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
  raw = unpacker.decompress(packed, most)
  # A full buffer may hide the mark of the end; a byte more shows it.
  if not unpacker.eof and unpacker.decompress(unpacker.unconsumed_tail, 1):
    raise ValueError(f"it unpacks to more than {most} bytes")
  if not unpacker.eof or unpacker.unused_data:
    raise ValueError("its end is missing, or something follows it")
  return raw
