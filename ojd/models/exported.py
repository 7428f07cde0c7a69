"""A student as a program of its own: `jax.export` of its answer.

The program takes the parameters and a batch of frames of one size, any number
of them, so that others can be put in their place. It runs without this package,
on what it was exported for, by the jax that wrote it and those of the six
months after; the parameters beside it, as safetensors, last.
"""

import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from flax import traverse_util
from jax import export

from ojd import distill
from ojd.errors import UserError
from ojd.models.pretrained import flatten
from ojd.models.student import Params, Student

PLATFORMS = ("cpu", "cuda", "tpu")
MONTHS = 6  # for which jax reads what an older one wrote
_MAX_BYTES = 1 << 28

# ({"layer/.../leaf": array}, [B, H, W, 3] uint8) -> classes [B, H, W] uint8
Program = Callable[[dict[str, jax.Array], jax.Array], jax.Array]


def save(
  path: pathlib.Path, student: Student, params: Params, height: int, width: int
) -> None:
  """Writes the student's answer as a program, whole or not at all.

  Args:
    path: of the file.
    student: whose `apply` is exported.
    params: arrays or their shapes, which are fixed from here on.
    height: of the frames; so is width.
  """

  def answer(named, frames):
    params = traverse_util.unflatten_dict(named, sep="/")
    classify = lambda frame: distill.classify(student.apply(params, frame))
    return jax.vmap(classify)(frames)

  shapes = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype)
    for name, x in flatten(params).items()
  }
  (batch,) = export.symbolic_shape("b")
  frames = jax.ShapeDtypeStruct((batch, height, width, 3), np.uint8)
  program = export.export(jax.jit(answer), platforms=PLATFORMS)(shapes, frames)
  beside = path.with_name(path.name + ".part")
  beside.write_bytes(program.serialize())
  os.replace(beside, path)


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
    program = export.deserialize(content)
  except Exception as error:  # of as many kinds as there is damage
    raise UserError(
      f"{path} is no exported student, or one of another time's jax "
      f"({type(error).__name__})"
    ) from None
  return jax.jit(program.call)
