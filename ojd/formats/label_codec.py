"""Labels, and the answers of teachers, as few bytes.

Labels come back bit for bit. The classes are a map (`map_codec`). So are the
weights where they take few values, as those of boxes do: then a table of the
values is stored, and a map of indices into it. Where they are 0 on every
ignored pixel the map need not say so, and boxes keep their straight sides. All
other weights are stored as they are.

An answer is checked on the way in and on the way out. A class map, boxes,
scores and class ids come back exactly. Masks of the frame are stored as one bit
a pixel inside their box, which is all that labels are made of: what lies
outside the box, and how far a pixel is from 0.5, is not kept. Soft masks of the
box are stored as a byte a pixel: a value is off by less than 1/255, and never
on the other side of 0.5. Each row is XORed with the one above it before it is
compressed, since most rows of a mask repeat: a fifth smaller than without.
"""

import struct
import zlib

import numpy as np

from ojd.formats import map_codec
from ojd.labels import MIN_MASK
from ojd.types import IGNORE, Instances, Labels

_MAX_VALUES = 16  # of weights, in a table
_MAX_SIDE = (1 << 16) - 1
_LEVEL = 6  # what 9 saves is nothing, and noise takes it a second
_HEAD = struct.Struct("<HHBB")  # height, width, values, is 0 where ignored

MAX_INSTANCES = 10_000
MAX_ANSWER_BYTES = 1 << 28  # unpacked
_ANSWER_LEVEL = 9  # milliseconds, where a teacher takes hundreds
_COUNTS = struct.Struct("<HHH")  # instances, height and width of a mask
_FIXED_BYTES = 4 * 4 + 4 + 2  # box, score and class id


def encode(labels: Labels) -> bytes:
  """The bytes of labels, on the host or on a device.

  Raises:
    ValueError: these are not labels of one frame.
  """
  classes, weights = (np.asarray(x) for x in labels)
  _check(classes, weights)
  # Zeros, infinities and NaNs of any kind differ by their bits.
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
  return head + table + _deflate(map_codec.encode(classes) + packed, _LEVEL)


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
  # An order that does not depend on the class in the corner.
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


def _deflate(raw, level):
  packer = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
  return packer.compress(raw) + packer.flush()


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


def encode_answer(
  kind: str,
  answer: Instances | np.ndarray,
  height: int,
  width: int,
  num_classes: int,
) -> bytes:
  """The bytes of an answer to a frame of height x width; else ValueError."""
  if kind == "class_map":
    raw = _class_map_bytes(answer, height, width, num_classes)
  else:
    raw = _instances_bytes(answer, height, width, num_classes)
  if len(raw) > MAX_ANSWER_BYTES:
    raise ValueError(f"it has {len(raw)} bytes, more than {MAX_ANSWER_BYTES}")
  return _deflate(raw, _ANSWER_LEVEL)


def decode_answer(
  kind: str, payload: bytes, height: int, width: int, num_classes: int
) -> Instances | np.ndarray:
  """The answer again; ValueError if it is none."""
  is_map = kind == "class_map"
  try:
    raw = _inflate(payload, height * width if is_map else MAX_ANSWER_BYTES)
    read = _class_map if is_map else _instances
    return read(raw, height, width, num_classes)
  except (struct.error, zlib.error) as error:
    raise ValueError(str(error)) from None


def _xor_rows(rows):
  filtered = rows.copy()
  filtered[1:] ^= rows[:-1]
  return filtered


def _class_map_bytes(answer, height, width, num_classes):
  answer = np.asarray(answer)
  if answer.shape != (height, width) or answer.dtype != np.uint8:
    raise ValueError(
      f"a class map is {(height, width)} uint8, not {answer.shape} "
      f"{answer.dtype}"
    )
  _check_classes(answer[answer != IGNORE], num_classes)
  return _xor_rows(answer).tobytes()


def _class_map(raw, height, width, num_classes):
  if len(raw) != height * width:
    raise ValueError(f"{len(raw)} bytes of {height * width}")
  filtered = np.frombuffer(raw, np.uint8).reshape(height, width)
  classes = np.bitwise_xor.accumulate(filtered, axis=0)
  _check_classes(classes[classes != IGNORE], num_classes)
  return classes


def _check_classes(classes, num_classes):
  if classes.size and not (classes.min() >= 0 and classes.max() < num_classes):
    raise ValueError(
      f"classes {classes.min()} to {classes.max()} of {num_classes}"
    )


def _instances_bytes(answer, height, width, num_classes):
  boxes = np.asarray(answer.boxes, np.float32).reshape(-1, 4)
  scores = np.asarray(answer.scores, np.float32)
  class_ids, masks = np.asarray(answer.class_ids), np.asarray(answer.masks)
  num = len(boxes)
  _check_counts(boxes, scores, class_ids, masks)
  _check_values(boxes, scores, class_ids, num_classes)
  if num and not (masks.min() >= 0 and masks.max() <= 1):
    raise ValueError("masks are from 0 to 1")
  size = masks.shape[1:] if num else (height, width)
  if size == (height, width):
    cut = _cut_boxes(boxes, height, width)
    pieces = [
      np.packbits(_xor_rows(mask[y0:y1, x0:x1] >= MIN_MASK)).tobytes()
      for mask, (y0, x0, y1, x1) in zip(masks, cut, strict=True)
    ]
  else:
    pieces = [_xor_rows(_to_bytes(mask)).tobytes() for mask in masks]
  return b"".join(
    [
      _COUNTS.pack(num, *size),
      boxes.astype("<f4").tobytes(),
      scores.astype("<f4").tobytes(),
      class_ids.astype("<u2").tobytes(),
      *pieces,
    ]
  )


def _instances(raw, height, width, num_classes):
  num, *size = _COUNTS.unpack_from(raw)
  if num > MAX_INSTANCES or len(raw) < _COUNTS.size + num * _FIXED_BYTES:
    raise ValueError(f"{len(raw)} bytes for {num} instances")
  if num * size[0] * size[1] > 4 * MAX_ANSWER_BYTES:
    raise ValueError(f"{num} masks of {size[0]}x{size[1]}")
  start = _COUNTS.size
  boxes = np.frombuffer(raw, "<f4", 4 * num, start).reshape(num, 4)
  scores = np.frombuffer(raw, "<f4", num, start + 16 * num)
  class_ids = np.frombuffer(raw, "<u2", num, start + 20 * num)
  class_ids = class_ids.astype(np.int32)
  _check_values(boxes, scores, class_ids, num_classes)
  rest = np.frombuffer(raw, np.uint8, offset=start + num * _FIXED_BYTES)
  if tuple(size) == (height, width):
    masks = _unpack_bits(rest, _cut_boxes(boxes, height, width), size)
  else:
    masks = _unpack_bytes(rest, (num, *size))
  # Native copies: callers may write to them.
  boxes, scores = boxes.astype(np.float32), scores.astype(np.float32)
  return Instances(boxes, scores, class_ids, masks)


def _check_counts(boxes, scores, class_ids, masks):
  num = len(boxes)
  if scores.shape != (num,) or class_ids.shape != (num,) or len(masks) != num:
    raise ValueError(
      f"{num} boxes, scores {scores.shape}, class ids {class_ids.shape}, "
      f"masks {masks.shape}"
    )
  if num > MAX_INSTANCES:
    raise ValueError(f"{num} instances, at most {MAX_INSTANCES}")
  if num and (class_ids.dtype.kind not in "iu" or masks.dtype.kind not in "bf"):
    raise ValueError(f"class ids {class_ids.dtype}, masks {masks.dtype}")
  if num and (masks.ndim != 3 or min(masks.shape[1:]) < 1):
    raise ValueError(f"masks {masks.shape}")


def _check_values(boxes, scores, class_ids, num_classes):
  if not np.isfinite(boxes).all() or (np.abs(boxes) > 2**24).any():
    raise ValueError("boxes are pixels")
  if not ((scores >= 0) & (scores <= 1)).all():
    raise ValueError("scores are from 0 to 1")
  _check_classes(class_ids, num_classes)


def _cut_boxes(boxes, height, width):
  """The whole pixels of boxes inside the frame, as labels take them."""
  whole = np.clip(
    boxes.astype(np.int32), 0, np.array([height, width, height, width])
  )
  whole[:, 2:] = np.maximum(whole[:, 2:], whole[:, :2])
  return whole.tolist()


def _unpack_bits(rest, boxes, size):
  masks = np.zeros((len(boxes), *size), bool)
  start = 0
  for mask, (y0, x0, y1, x1) in zip(masks, boxes, strict=True):
    area = (y1 - y0) * (x1 - x0)
    packed = rest[start : start + -(-area // 8)]
    if 8 * len(packed) < area:
      raise ValueError("its masks are cut off")
    rows = np.unpackbits(packed, count=area).reshape(y1 - y0, x1 - x0)
    mask[y0:y1, x0:x1] = np.bitwise_xor.accumulate(rows, axis=0)
    start += len(packed)
  if start != len(rest):
    raise ValueError("something follows its masks")
  return masks


def _to_bytes(mask):
  """A byte a pixel, 128 and more from 0.5 on."""
  mask = np.asarray(mask, np.float32)
  scaled = np.rint(mask * np.float32(255)).astype(np.uint8)
  return np.where(
    mask >= MIN_MASK, np.maximum(scaled, 128), np.minimum(scaled, 127)
  ).astype(np.uint8)


def _unpack_bytes(rest, shape):
  num, height, width = shape
  if len(rest) != num * height * width or (num and not height * width):
    raise ValueError(f"{len(rest)} bytes for masks {shape}")
  filtered = rest.reshape(shape)
  return np.bitwise_xor.accumulate(filtered, axis=1) / np.float32(255)
