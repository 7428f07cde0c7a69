"""The weights as both ends know them: names, shapes, their fixed order.

P is the number of coordinates. The ravelled vector, [P] float32, is all arrays
one after the other, by sorted name and each in C order.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ojd.network.messages import DIGEST_BYTES


class Layout(NamedTuple):
  """What is agreed upon before the first message; a digest tells it."""

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


def layout_of(
  params: Mapping[str, np.ndarray], trainable: Iterable[str] | None = None
) -> Layout:
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


def ravel(params: Mapping[str, np.ndarray], layout: Layout) -> np.ndarray:
  """The ravelled vector, a copy."""
  check(params, layout)
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


def check(params: Mapping[str, np.ndarray], layout: Layout) -> None:
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


def digest_of(params: Mapping[str, np.ndarray], layout: Layout) -> bytes:
  """What tells two sets of weights apart, bit for bit, of the same names."""
  digest = hashlib.sha256()
  for name in layout.names:
    digest.update(np.ascontiguousarray(params[name]).data)
  return digest.digest()[:DIGEST_BYTES]


def trainable_bits(layout: Layout) -> bytes:
  """A bit for each array in its order, the first one the highest of a byte."""
  trainable = set(layout.trainable)
  bits = [name in trainable for name in layout.names]
  return np.packbits(np.array(bits, bool)).tobytes()


def with_trainable(
  params: Mapping[str, np.ndarray], layout: Layout, bits: bytes
) -> Layout:
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
