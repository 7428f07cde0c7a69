"""Files of trained delta students: both trees, and how they were made.

One of three forms, in what they say about themselves: `convolutions`, whose
changes stand in for single ones; `blocks`; and `skip`, of the gates that decide
where a convolution is computed.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from ojd.errors import UserError
from ojd.models import pretrained
from ojd.models.delta import block, changes, gates, sites
from ojd.models.delta import skip as skip_lib
from ojd.models.delta.convert import DELTA, MODEL, DeltaStudent, convert
from ojd.models.pretrained import Pretrained
from ojd.models.student import Params, Student

CONVOLUTIONS, BLOCKS, SKIP = FORMS = ("convolutions", "blocks", "skip")


class Trained(NamedTuple):
  """What stands in for parts of a student, learnt along with it."""

  form: str  # of FORMS
  delta: Params  # one branch a layer
  block: int = 1  # side of those of a gate


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
    params: {"model", "delta"}, of which `gates.deploy` left one branch a layer.
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
  def change_of(site):
    weights = sites.at(trained.delta, site.path)
    return gates.of_weights(weights) if weights else None

  return convert(student, changes.rules(change_of))


def _blocks(student, trained):
  def make_h(site):
    kernel = sites.at(trained.delta, (*site.path, "narrow")).get("kernel")
    between = 1 if kernel is None else kernel.shape[-1]
    return block.thin(site, between)

  return block.convert_blocks(student, make_h)


def _skip(student, trained):
  rule = skip_lib.skip(skip_lib.by_gumbel(), block=trained.block)
  is_gated = lambda site: bool(sites.at(trained.delta, site.path))
  return convert(student, lambda site: rule if is_gated(site) else None)


_CONVERT = {CONVOLUTIONS: _convolutions, BLOCKS: _blocks, SKIP: _skip}
