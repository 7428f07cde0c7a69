"""The layers of a network, with their sizes, parameters and work."""

from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from ojd.models import layers, parts

_CONVOLUTIONS = (layers.Conv, layers.Depthwise)
_NORMS = (layers.Norm, layers.ScaleRelu)


class Row(NamedTuple):
  """One layer that has parameters."""

  name: str
  shape_in: tuple[int, int, int]  # H, W, channels
  shape_out: tuple[int, int, int]
  kernel: str  # "3x3 / 2", dilated "3x3 * 2", empty for a norm
  num_params: int
  macs: int  # multiply-accumulates of a convolution, 0 for others


def layer_table(model: nn.Module, height: int, width: int) -> list[Row]:
  """Traces a model on one frame and lists its layers in the order they run.

  Only shapes are traced; nothing is computed.
  """
  rows = []

  def note(next_fun, args, kwargs, context):
    out = next_fun(*args, **kwargs)
    if isinstance(context.module, _CONVOLUTIONS + _NORMS):
      rows.append(_row(context.module, args[0].shape[1:], out.shape[1:]))
    return out

  frame = jax.ShapeDtypeStruct((1, height, width, 3), np.uint8)
  with nn.intercept_methods(note):
    jax.eval_shape(model.init, jax.random.key(0), frame)
  return rows


def _row(module, shape_in, shape_out):
  name = "/".join(module.path)
  channels = shape_out[-1]
  if isinstance(module, _NORMS):
    return Row(name, shape_in, shape_out, "", 2 * channels, 0)
  kh, kw = module.kernel_size
  is_depthwise = isinstance(module, layers.Depthwise)
  weights = kh * kw * channels * (1 if is_depthwise else shape_in[-1])
  bias = channels if getattr(module, "use_bias", False) else 0
  return Row(
    name,
    shape_in,
    shape_out,
    f"{kh}x{kw}"
    + (f" / {module.stride}" if module.stride > 1 else "")
    + (f" * {module.dilation}" if module.dilation > 1 else ""),
    weights + bias,
    weights * shape_out[0] * shape_out[1],
  )


def num_params(rows: list[Row]) -> int:
  """Trainable numbers of a table."""
  return sum(row.num_params for row in rows)


def num_partial(rows: list[Row]) -> int:
  """The trainable numbers of partial distillation."""
  is_behind = lambda row: parts.part_of(row.name) in ("decoder", "head")
  return sum(row.num_params for row in rows if is_behind(row))


def gflop(rows: list[Row]) -> float:
  """Work of the convolutions of a table: 2 x multiply-accumulates / 1e9."""
  return 2 * sum(row.macs for row in rows) / 1e9
