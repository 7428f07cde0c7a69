"""A student as a program that runs without this package, by `jax.export`.

The program takes parameters and a batch of frames of one size, any number of
them. It runs on the platforms that it was exported for, by the jax that wrote
it and those of the six months after; the parameters are in a file beside it, as
safetensors, which lasts.
"""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from flax import traverse_util
from jax import export as jax_export

from ojd.errors import UserError
from ojd.formats.replacing import replacing
from ojd.models.pretrained import flatten
from ojd.models.student import Params
from ojd.types import Frame

PLATFORMS = ("cpu", "cuda", "tpu")
MONTHS = 6  # for which jax reads what an older one wrote
_MAX_BYTES = 1 << 28

# ({"layer/.../leaf": array}, [B, H, W, 3] uint8) -> classes [B, H, W] uint8
Program = Callable[[dict[str, jax.Array], jax.Array], jax.Array]


def save(
  path: pathlib.Path,
  answer_fn: Callable[[Params, Frame], jax.Array],
  params: Params,
  height: int,
  width: int,
) -> None:
  """Writes a student's answer as a program, whole or not at all.

  Args:
    path: of the file.
    answer_fn: (params, frame [H, W, 3]) -> classes [H, W].
    params: arrays or their shapes, which the program fixes.
    height: of the frames; so is width.
  """

  def answer(named, frames):
    params = traverse_util.unflatten_dict(named, sep="/")
    return jax.vmap(lambda frame: answer_fn(params, frame))(frames)

  shapes = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype)
    for name, x in flatten(params).items()
  }
  (batch,) = jax_export.symbolic_shape("b")
  frames = jax.ShapeDtypeStruct((batch, height, width, 3), np.uint8)
  program = jax_export.export(jax.jit(answer), platforms=PLATFORMS)(
    shapes, frames
  )
  with replacing(path) as beside:
    beside.write_bytes(program.serialize())


def load(path: pathlib.Path | str) -> Program:
  """Reads a program that `save` wrote; run only what you trust."""
  path = pathlib.Path(path)
  try:
    if path.stat().st_size > _MAX_BYTES:
      raise UserError(f"{path}: larger than a student can be")
    content = bytearray(path.read_bytes())
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from None
  try:
    program = jax_export.deserialize(content)
  except Exception as error:  # of many kinds
    raise UserError(
      f"{path} is no exported student, or of another jax "
      f"({type(error).__name__})"
    ) from None
  return jax.jit(program.call)
