"""One teacher answer <-> bytes, checked on the way in and on the way out.

A class map is stored exactly. So are boxes, scores and class ids of instances.
Masks of the frame are stored as one bit a pixel inside their box, which is all
that labels are made of: what lies outside the box, and how far a pixel is from
0.5, is not kept. Soft masks of the box are stored as a byte a pixel: a value is
off by less than 1/255, and never on the other side of 0.5.

Before zlib each row is XORed with the one above it, since most rows of a mask
repeat: a fifth smaller than without.
"""

import struct
import zlib

import numpy as np

from ojd.labels import MIN_MASK
from ojd.types import IGNORE, Instances

MAX_INSTANCES = 10_000
MAX_BYTES = 1 << 28  # of an answer, unpacked
_LEVEL = 9  # milliseconds, where a teacher takes hundreds
_COUNTS = struct.Struct("<HHH")  # instances, height and width of a mask
# Box, score and class id.
_FIXED_BYTES = 4 * 4 + 4 + 2


def encode(
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
  if len(raw) > MAX_BYTES:
    raise ValueError(f"it has {len(raw)} bytes, more than {MAX_BYTES}")
  return zlib.compress(raw, _LEVEL)


def decode(
  kind: str, payload: bytes, height: int, width: int, num_classes: int
) -> Instances | np.ndarray:
  """The answer again; ValueError, zlib.error or struct.error if it is none."""
  if kind == "class_map":
    raw = _inflate(payload, height * width)
    return _class_map(raw, height, width, num_classes)
  return _instances(_inflate(payload, MAX_BYTES), height, width, num_classes)


def _inflate(payload, most):
  """Unpacks at most `most` bytes, however many the payload says it holds."""
  unpacker = zlib.decompressobj()
  raw = unpacker.decompress(payload, most + 1)
  if len(raw) > most:
    raise ValueError(f"it unpacks to more than {most} bytes")
  if not unpacker.eof or unpacker.unused_data:
    raise ValueError("its end is missing, or something follows it")
  return raw


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
  if num * size[0] * size[1] > 4 * MAX_BYTES:
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
