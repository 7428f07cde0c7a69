"""Files of trained delta students: both trees, and which rules they are of."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from ojd.errors import RequestError
from ojd.models import pretrained
from ojd.models.delta import changes, gates, sites
from ojd.models.delta.convert import DELTA, MODEL, DeltaStudent, convert
from ojd.models.student import Params, Student


class Trained(NamedTuple):
  """What a file holds."""

  params: Params  # {"model", "delta"}, one branch a layer
  class_names: tuple[str, ...]
  about: dict[str, Any]  # JSON


def save(path: pathlib.Path, trained: Trained) -> None:
  """Writes a file, in float32, whole or not at all.

  Args:
    path: of the file.
    trained: with the parameters that `gates.deploy` leaves.
  """
  flat = pretrained.flatten(jax.device_get(trained.params))
  whole = pretrained.Pretrained(flat, trained.class_names, trained.about)
  pretrained.save(path, whole, np.float32)


def load(path: pathlib.Path) -> Trained:
  """Reads what `save` wrote; anything else is a RequestError."""
  found = pretrained.load(path)
  params = traverse_util.unflatten_dict(found.params, sep="/")
  if params.keys() != {MODEL, DELTA}:
    raise RequestError(f"--init={path}: not a student with trained changes")
  return Trained(params, found.class_names, found.about)


def start_from(
  student: Student, trained: Trained
) -> tuple[Student, DeltaStudent, Params]:
  """The student with the file's parameters, its conversion, and their delta.

  A layer without parameters in the file runs whole. Raises a RequestError
  where the file is of another network.
  """
  _check(student, trained.params)

  def change_of(site):
    weights = sites.at(trained.params[DELTA], site.path)
    return gates.of_weights(weights) if weights else None

  net = convert(student, changes.rules(change_of))
  model = jax.tree.map(jax.numpy.asarray, trained.params[MODEL])
  first = student._replace(init=lambda rng_key, frame: model)
  return first, net, trained.params[DELTA]


def _check(student, params):
  frame = jax.ShapeDtypeStruct((64, 64, 3), np.uint8)
  shapes = jax.eval_shape(student.init, jax.random.key(0), frame)
  wanted = {n: x.shape for n, x in pretrained.flatten(shapes).items()}
  given = {n: x.shape for n, x in pretrained.flatten(params[MODEL]).items()}
  for name in sorted(wanted.keys() | given.keys()):
    if wanted.get(name) != given.get(name):
      raise RequestError(
        f"--init: the file is of another network: {name} is {given.get(name)}, "
        f"not {wanted.get(name)}"
      )
