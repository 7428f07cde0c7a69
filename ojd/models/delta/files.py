"""Files of trained delta students: parameters of model and rules.

Their metadata name one of three forms: `convolutions` and `blocks`, after what
is replaced, and `skip`, whose gates decide where a convolution is computed.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from ojd.errors import UserError
from ojd.models import pretrained
from ojd.models.delta import blocks, changes, conversion
from ojd.models.delta import skip as skip_lib
from ojd.models.delta.conversion import DELTA, MODEL, DeltaStudent, convert
from ojd.models.pretrained import Pretrained
from ojd.models.student import Params, Student

CONVOLUTIONS, BLOCKS, SKIP = FORMS = ("convolutions", "blocks", "skip")


class Trained(NamedTuple):
  """The trained replacements of parts of a student."""

  form: str  # of FORMS
  delta: Params  # one branch a layer
  block: int = 1  # side of the blocks of pixels of a gate


def save(
  path: pathlib.Path,
  params: Params,
  form: str,
  class_names: tuple[str, ...],
  about: dict[str, Any],
) -> None:
  """Writes a file, in float32, whole or not at all.

  Args:
    path: of the file.
    params: {"model", "delta"}, with one branch a layer, of `training.deploy`.
    form: of FORMS.
    class_names: of the model.
    about: JSON.
  """
  flat = pretrained.flatten(jax.device_get(params))
  whole = Pretrained(flat, class_names, {**about, "form": form})
  pretrained.save(path, whole, np.float32)


def split(found: Pretrained) -> tuple[Pretrained, Trained | None]:
  """The student of any file, and its trained changes if it has some."""
  tree = traverse_util.unflatten_dict(found.params, sep="/")
  if tree.keys() != {MODEL, DELTA}:
    return found, None
  form = found.about.get("form")
  if form not in FORMS:
    raise UserError(
      f"--init: a file of trained changes of no known form: {form}"
    )
  model = found._replace(params=pretrained.flatten(tree[MODEL]))
  side = found.about.get("block", 1)
  if side not in skip_lib.BLOCKS:
    raise UserError(f"--init: gates of blocks of {side}")
  return model, Trained(form, tree[DELTA], side)


def convert_trained(student: Student, trained: Trained) -> DeltaStudent:
  """The conversion that has a file's parameters.

  A layer or block without parameters in the file runs whole. Raises a
  UserError where the file is of another network.
  """
  net = _CONVERT[trained.form](student, trained)
  frame = jax.ShapeDtypeStruct((64, 64, 3), np.uint8)
  shapes = jax.eval_shape(net.init, jax.random.key(0), frame)[DELTA]
  wanted = {n: x.shape for n, x in pretrained.flatten(shapes).items()}
  given = {n: x.shape for n, x in pretrained.flatten(trained.delta).items()}
  for name in sorted(wanted.keys() | given.keys()):
    if wanted.get(name) != given.get(name):
      raise UserError(
        "--init: the changes are of another network: "
        f"{name} is {given.get(name)}, not {wanted.get(name)}"
      )
  return net


def _convolutions(student, trained):
  def change_of(conv):
    weights = conversion.at(trained.delta, conv.path)
    return changes.of_weights(weights) if weights else None

  return convert(student, changes.rules(change_of))


def _blocks(student, trained):
  def make_h(conv):
    kernel = conversion.at(trained.delta, (*conv.path, "narrow")).get("kernel")
    between = 1 if kernel is None else kernel.shape[-1]
    return blocks.thin(conv, between)

  return blocks.convert_blocks(student, make_h)


def _skip(student, trained):
  rule = skip_lib.skip(skip_lib.by_gumbel(), block=trained.block)
  is_gated = lambda conv: bool(conversion.at(trained.delta, conv.path))
  return convert(student, lambda conv: rule if is_gated(conv) else None)


_CONVERT = {CONVOLUTIONS: _convolutions, BLOCKS: _blocks, SKIP: _skip}
