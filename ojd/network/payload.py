"""New values of some weights <-> a payload, and weights with them in place.

What is chosen is all of the P coordinates, the layout's static mask, or any
mask. Values are new ones and not differences: what a device holds afterwards
does not depend on rounding before. They may travel as float16. Then the server
rounds its own copy alike (`server_copy`), and both ends hold the same bits. A
payload with a value beyond the range of float16 goes as float32: nothing is
clipped. Values that are not finite do not travel.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ojd.network import layout as layout_lib
from ojd.network import mask_code
from ojd.network.layout import Layout
from ojd.network.limits import Limits, WireError

FULL, STATIC = "full", "static"  # masks that both ends know, without a byte
ENCODINGS = (FULL, STATIC, *mask_code.CODES)
DTYPES = ("float32", "float16")
_DTYPES = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}

Params = Mapping[str, np.ndarray]  # float32, by name
Chosen = str | np.ndarray  # FULL, STATIC or a mask, [P] bool


class Payload(NamedTuple):
  """Which coordinates, and their values."""

  encoding: str  # of ENCODINGS
  dtype: str  # of DTYPES
  num_coords: int  # P
  num_chosen: int
  mask: bytes  # empty where both ends know it
  values: bytes  # little-endian, of the chosen ones in their order


def pack(
  params: Params,
  layout: Layout,
  chosen: Chosen,
  dtype: str = "float32",
  code: str | None = None,
) -> Payload:
  """The payload that brings a device's chosen coordinates up to date.

  Args:
    params: the weights that the server has now.
    layout: theirs.
    chosen: what is sent of them.
    dtype: of the values; float32 all the same where float16 has no room.
    code: of the mask (`mask_code.CODES`); None for the smallest.

  Raises:
    WireError: a chosen value is not finite.
    ValueError: weights or a mask of another layout.
  """
  vector = layout_lib.ravel(params, layout)
  values = _sent(vector[_indices(chosen, layout)], dtype)
  encoding, mask = _pack_mask(chosen, layout, code)
  return Payload(
    encoding=encoding,
    dtype=values.dtype.name,
    num_coords=vector.size,
    num_chosen=values.size,
    mask=mask,
    values=values.astype(_DTYPES[values.dtype.name]).tobytes(),
  )


def server_copy(
  params: Params, layout: Layout, chosen: Chosen, dtype: str = "float32"
) -> dict[str, np.ndarray]:
  """The weights that the server goes on with after `pack` with the same.

  They are what the device holds, if it held the same in all other coordinates.
  """
  vector, where = layout_lib.ravel(params, layout), _indices(chosen, layout)
  vector[where] = _sent(vector[where], dtype)
  return layout_lib.unravel(vector, layout)


def apply(
  params: Params, layout: Layout, payload: Payload
) -> dict[str, np.ndarray]:
  """New arrays with the payload's values in place; the old ones stay.

  Raises:
    WireError: the payload does not fit; nothing was changed.
  """
  if payload.num_coords != layout.num_coords:
    raise WireError(
      f"values for {payload.num_coords} coordinates, not {layout.num_coords}"
    )
  check(payload, Limits(max_coords=layout.num_coords))
  where = _decode_mask(payload, layout)
  vector = layout_lib.ravel(params, layout)
  vector[where] = np.frombuffer(payload.values, _DTYPES[payload.dtype])
  return layout_lib.unravel(vector, layout)


def check(payload: Payload, limits: Limits) -> None:
  """Raises a WireError unless this can be a payload of some layout."""
  if payload.encoding not in ENCODINGS:
    raise WireError(f"an unknown encoding of the mask, {payload.encoding!r}")
  if payload.dtype not in DTYPES:
    raise WireError(f"an unknown type of values, {payload.dtype!r}")
  if not 0 <= payload.num_coords <= limits.max_coords:
    raise WireError(
      f"{payload.num_coords} coordinates, and {limits.max_coords} are the most"
    )
  most = payload.num_coords
  least = most if payload.encoding == FULL else 0
  if not least <= payload.num_chosen <= most:
    raise WireError(f"{payload.num_chosen} values for {most} coordinates")
  if payload.mask and payload.encoding in (FULL, STATIC):
    raise WireError(f"a mask of {len(payload.mask)} bytes where none is due")
  dtype = _DTYPES[payload.dtype]
  if len(payload.values) != payload.num_chosen * dtype.itemsize:
    raise WireError(
      f"{len(payload.values)} bytes for {payload.num_chosen} values "
      f"of {payload.dtype}"
    )
  if not np.isfinite(np.frombuffer(payload.values, dtype)).all():
    raise WireError("a value is not finite")


def _pack_mask(chosen, layout, code):
  if isinstance(chosen, str):
    return chosen, b""
  return mask_code.encode(chosen, layout.sizes, code)


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
    return slice(None)
  if chosen == STATIC:
    return layout_lib.static_indices(layout)
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


def _decode_mask(payload, layout):
  if payload.encoding in (FULL, STATIC):
    where = _indices(payload.encoding, layout)
    if payload.encoding == STATIC and where.size != payload.num_chosen:
      raise WireError(
        f"{payload.num_chosen} values for a static mask of {where.size}"
      )
    return where
  return mask_code.decode(
    payload.mask, layout.sizes, payload.num_chosen, payload.encoding
  )
