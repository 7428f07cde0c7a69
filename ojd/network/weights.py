"""Weights that both ends hold alike, and the updates from version to version.

P is the number of coordinates. The ravelled vector, [P] float32, is all arrays
one after the other, by sorted name and each in C order.

An update brings new values of some coordinates: all P of them, those of the
layout's static mask, or any mask. Values are new ones and not differences: what
a device holds afterwards does not depend on rounding before. They may travel as
float16. Then the server rounds its own copy alike, and both ends hold the same
bits. An update with a value beyond the range of float16 goes as float32:
nothing is clipped. Values that are not finite do not travel.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ojd.network import mask_code
from ojd.network.messages import (
  DIGEST_BYTES,
  DTYPES,
  FULL,
  NO_SESSION,
  STATIC,
  Payload,
  Schedule,
  Update,
  WireError,
)

Params = Mapping[str, np.ndarray]  # float32, by name
Chosen = str | np.ndarray  # FULL, STATIC or a mask, [P] bool
UNSCHEDULED = Schedule()
_WIRE_TYPES = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class Layout(NamedTuple):
  """What both ends agree on before the first message, as a digest."""

  names: tuple[str, ...]  # sorted
  shapes: tuple[tuple[int, ...], ...]
  trainable: tuple[str, ...]  # sorted; the names in the static mask
  digest: bytes  # of all of the above

  @property
  def sizes(self) -> list[int]:
    """Coordinates of each array; their sum is P."""
    return [math.prod(shape) for shape in self.shapes]

  @property
  def num_coords(self) -> int:
    """P."""
    return sum(self.sizes)


def layout_of(params: Params, trainable: Iterable[str] | None = None) -> Layout:
  """The layout of weights by name.

  Args:
    params: float32 arrays by name.
    trainable: the names that training moves where it moves these alone; all
      where None.

  Raises:
    ValueError: not such arrays, or a trainable name among them is missing.
  """
  names = tuple(sorted(params))
  for name in names:
    if params[name].dtype != np.float32:
      raise ValueError(f"{name} is {params[name].dtype}, not float32")
  shapes = tuple(tuple(int(n) for n in params[name].shape) for name in names)
  trainable = names if trainable is None else tuple(sorted(set(trainable)))
  missing = set(trainable) - set(names)
  if missing:
    raise ValueError(f"{min(missing)} is trainable, but there is no such array")
  agreed = json.dumps(["float32", names, shapes, trainable])
  digest = hashlib.sha256(agreed.encode()).digest()[:DIGEST_BYTES]
  return Layout(names, shapes, trainable, digest)


def ravel(params: Params, layout: Layout) -> np.ndarray:
  """The ravelled vector, a copy."""
  check_layout(params, layout)
  parts = [params[name].ravel() for name in layout.names]
  return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def unravel(vector: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
  """The arrays by name, views of the vector."""
  *parts, _ = np.split(vector, np.cumsum(layout.sizes))
  return {
    name: part.reshape(shape)
    for name, shape, part in zip(
      layout.names, layout.shapes, parts, strict=True
    )
  }


def check_layout(params: Params, layout: Layout) -> None:
  """Raises a ValueError where weights are of another layout."""
  if tuple(sorted(params)) != layout.names:
    raise ValueError("the arrays have other names than the layout")
  for name, shape in zip(layout.names, layout.shapes, strict=True):
    found = params[name]
    if found.shape != shape or found.dtype != np.float32:
      raise ValueError(
        f"{name} is {found.shape} {found.dtype}, not {shape} float32"
      )


def static_indices(layout: Layout) -> np.ndarray:
  """Where the coordinates of the trainable arrays are, ascending, int64."""
  sizes, trainable = layout.sizes, set(layout.trainable)
  is_moving = [name in trainable for name in layout.names]
  return np.flatnonzero(np.repeat(np.array(is_moving, bool), sizes))


def digest_of(params: Params, layout: Layout) -> bytes:
  """A digest of a set of weights, bit for bit."""
  digest = hashlib.sha256()
  for name in layout.names:
    digest.update(np.ascontiguousarray(params[name]).data)
  return digest.digest()[:DIGEST_BYTES]


def trainable_bits(layout: Layout) -> bytes:
  """A bit for each array in its order, the first one the highest of a byte."""
  trainable = set(layout.trainable)
  bits = [name in trainable for name in layout.names]
  return np.packbits(np.array(bits, bool)).tobytes()


def with_trainable(params: Params, layout: Layout, bits: bytes) -> Layout:
  """The layout whose trainable arrays are those of `trainable_bits`.

  Raises:
    ValueError: these are bits for another number of arrays.
  """
  num = len(layout.names)
  if len(bits) != -(-num // 8):
    raise ValueError(f"{8 * len(bits)} bits for {num} arrays")
  is_in = np.unpackbits(np.frombuffer(bits, np.uint8)).astype(bool)
  if is_in[num:].any():
    raise ValueError(f"a bit beyond those of {num} arrays")
  names = (n for n, x in zip(layout.names, is_in[:num], strict=True) if x)
  return layout_of(params, names)


class Weights(NamedTuple):
  """What a device predicts with, and the server's copy of it."""

  params: Params
  layout: Layout
  version: int = 0


def changed(held: Weights, params: Params, dtype: str = "float32") -> Chosen:
  """The coordinates whose bits differ, in the shortest code.

  Args:
    held: what the device holds.
    params: what it should hold, of the same layout.
    dtype: in which the values are to travel.

  Returns:
    STATIC where all that differs is trainable, and to send the trainable ones
    whole takes fewer bytes than to say which of them differ; else a mask, [P].
  """
  layout = held.layout
  new = ravel(params, layout).view(np.uint32)
  mask = new != ravel(held.params, layout).view(np.uint32)
  static, num = static_indices(layout), np.count_nonzero(mask)
  if np.count_nonzero(mask[static]) < num:
    return mask
  *parts, _ = np.split(mask, np.cumsum(layout.sizes))
  mask_size = sum(mask_bytes(int(part.sum()), part.size) for part in parts)
  spared = _WIRE_TYPES[dtype].itemsize * (static.size - num)
  return STATIC if num and spared <= mask_size else mask


def mask_bytes(num_chosen: int, num_coords: int) -> float:
  """The entropy of a mask: about the least bytes that say what was chosen."""
  if num_chosen in (0, num_coords):
    return 0.0
  share = num_chosen / num_coords
  bits = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
  return bits * num_coords / 8


def advance(
  held: Weights,
  params: Params,
  chosen: Chosen,
  *,
  dtype: str = "float32",
  code: str | None = None,
  session: bytes = NO_SESSION,
  schedule: Schedule = UNSCHEDULED,
) -> tuple[Update, Weights]:
  """The update for a device, and what it and the server then hold.

  Args:
    held: what the device holds now.
    params: what the server has trained from there; float32, by name.
    chosen: what was moved.
    dtype: of the values; float32 all the same where float16 has no room.
    code: of the mask (`mask_code.CODES`); None for the smallest.
    session: of the device.
    schedule: from here on.

  Raises:
    WireError: a chosen value is not finite.
    ValueError: other weights, or some moved that were not chosen.
  """
  layout, where = held.layout, _indices(chosen, held.layout)
  vector = ravel(params, layout)
  values = _sent(vector[where], dtype)
  encoding, mask = _encode_mask(chosen, layout, code)
  dtype = values.dtype.name
  payload = Payload(
    encoding, dtype, mask, values.astype(_WIRE_TYPES[dtype]).tobytes()
  )
  vector[where] = values
  copy = unravel(vector, layout)
  _check_others(held, copy, payload)
  version = held.version + 1
  update = Update(
    session, held.version, version, layout.digest, schedule, payload
  )
  return update, Weights(copy, layout, version)


def whole(
  held: Weights,
  session: bytes = NO_SESSION,
  schedule: Schedule = UNSCHEDULED,
) -> Update:
  """The update that gives a device all weights, whatever it holds."""
  values = _sent(ravel(held.params, held.layout), "float32")
  payload = Payload(FULL, "float32", b"", values.astype("<f4").tobytes())
  return Update(
    *(session, held.version, held.version, held.layout.digest),
    schedule,
    payload,
  )


def apply(held: Weights, update: Update) -> Weights:
  """What a device holds after an update, in arrays of its own.

  Raises:
    WireError: it is for other weights; those held are still whole.
  """
  if update.layout != held.layout.digest:
    raise WireError("the update is for weights of another layout")
  is_whole = update.payload.encoding == FULL
  if not is_whole and update.base_version != held.version:
    raise WireError(
      f"the update fits version {update.base_version} of the weights, and "
      f"version {held.version} is held"
    )
  params = _applied(held, update.payload)
  return Weights(params, held.layout, update.new_version)


def _applied(held, payload: Payload):
  """New arrays with the payload's values in place."""
  dtype = _WIRE_TYPES[payload.dtype]
  num, odd = divmod(len(payload.values), dtype.itemsize)
  if odd or num > held.layout.num_coords:
    raise WireError(
      f"{len(payload.values)} bytes of {payload.dtype} for "
      f"{held.layout.num_coords} coordinates"
    )
  values = np.frombuffer(payload.values, dtype)
  if not np.isfinite(values).all():
    raise WireError("a value is not finite")
  where = _decode_mask(payload, held.layout, num)
  vector = ravel(held.params, held.layout)
  vector[where] = values
  return unravel(vector, held.layout)


def _check_others(held, copy, payload):
  """Raises a ValueError unless a device comes to hold the server's copy."""
  applied = _applied(held, payload)
  for name, array in copy.items():
    if not np.array_equal(applied[name].view("u4"), array.view("u4")):
      raise ValueError(f"{name} has moved where it was not chosen")


def _indices(chosen, layout):
  """What picks the chosen of the ravelled vector."""
  if isinstance(chosen, np.ndarray):
    if chosen.dtype != bool or chosen.shape != (layout.num_coords,):
      raise ValueError(
        f"a mask is [{layout.num_coords}] bool, not {chosen.shape} "
        f"{chosen.dtype}"
      )
    return chosen
  if chosen == FULL:
    return np.arange(layout.num_coords)
  if chosen == STATIC:
    return static_indices(layout)
  raise ValueError(f"{chosen!r} is no choice of coordinates")


def _sent(values, dtype):
  """Values as they travel, float16 or float32."""
  if not np.isfinite(values).all():
    raise WireError("a value to be sent is not finite")
  if dtype not in DTYPES:
    raise ValueError(f"values are {' or '.join(DTYPES)}, not {dtype!r}")
  with np.errstate(over="ignore"):
    rounded = values.astype(dtype)
  return rounded if np.isfinite(rounded).all() else values


def _encode_mask(chosen, layout, code):
  if isinstance(chosen, str):
    return chosen, b""
  return mask_code.encode(chosen, layout.sizes, code)


def _decode_mask(payload, layout, num):
  """Where the values belong, [num] ascending."""
  if payload.encoding not in (FULL, STATIC):
    return mask_code.decode(payload.mask, layout.sizes, num, payload.encoding)
  if payload.mask:
    raise WireError(f"a mask of {len(payload.mask)} bytes where none is due")
  where = _indices(payload.encoding, layout)
  if where.size != num:
    raise WireError(
      f"{num} values for a {payload.encoding} mask of {where.size}"
    )
  return where
