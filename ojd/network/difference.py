"""What of the weights must travel: where they are not what the device holds."""

import math

import numpy as np

from ojd.network import layout as layout_lib
from ojd.network.payload import STATIC, Chosen, Params
from ojd.network.weights import Weights

_VALUE_BYTES = {"float32": 4, "float16": 2}


def choose(held: Weights, params: Params, dtype: str = "float32") -> Chosen:
  """The coordinates whose bits differ, told as briefly as can be.

  Args:
    held: what the device holds.
    params: what it should hold, of the same layout.
    dtype: in which the values are to travel.

  Returns:
    STATIC where all that differs is trainable, and to send the trainable ones
    whole takes fewer bytes than to say which of them differ; else a mask, [P].
  """
  layout = held.layout
  new = layout_lib.ravel(params, layout).view(np.uint32)
  mask = new != layout_lib.ravel(held.params, layout).view(np.uint32)
  static, num = layout_lib.static_indices(layout), np.count_nonzero(mask)
  if np.count_nonzero(mask[static]) < num:
    return mask
  *parts, _ = np.split(mask, np.cumsum(layout.sizes))
  mask_size = sum(mask_bytes(int(part.sum()), part.size) for part in parts)
  spared = _VALUE_BYTES[dtype] * (static.size - num)
  return STATIC if num and spared <= mask_size else mask


def mask_bytes(num_chosen: int, num_coords: int) -> float:
  """About the least bytes that tell which of an array were chosen."""
  if num_chosen in (0, num_coords):
    return 0.0
  share = num_chosen / num_coords
  bits = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
  return bits * num_coords / 8
