"""Pretrained students: their file, and how they are fitted to other classes.

A file holds parameters by name and, as metadata, their class names and how they
were trained. The classes of a student that starts from it may differ: the
logits of a group are the average of its members', those of an unknown class are
random. A file without class names has features alone; the layers that it does
not hold are random.
"""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from ojd.errors import UserError
from ojd.formats.replacing import replacing
from ojd.labels import ClassGroups
from ojd.models.student import Params, Student

_ASSETS = pathlib.Path(__file__).parent / "assets"


# Files that come with the package, by --model; of the networks' own options.
BUNDLED = {
  "jitnet": _ASSETS / "jitnet.safetensors",
  "shadow": _ASSETS / "shadow.safetensors",
}
_MAX_BYTES = 1 << 30
# The layers whose shape depends on the number of classes.
_HEAD, _LAST = "logits", "decoder_conv1"


class Pretrained(NamedTuple):
  """Parameters, with their classes and provenance."""

  params: dict[str, np.ndarray]  # float32, by "layer/.../leaf"
  class_names: tuple[str, ...]  # "background" first; none: features alone
  about: dict[str, Any]  # JSON; the network and how it was trained


def flatten(params: Params) -> dict[str, Any]:
  """Parameters by "layer/.../leaf"."""
  return traverse_util.flatten_dict(params, sep="/")


def save(
  path: pathlib.Path, pretrained: Pretrained, dtype: type = np.float16
) -> None:
  """Writes a file, whole or not at all; float32 loses nothing."""
  # The memory is written as it is: a transposed view would be wrong.
  params = {
    k: np.ascontiguousarray(v, dtype) for k, v in pretrained.params.items()
  }
  metadata = {
    "class_names": json.dumps(pretrained.class_names),
    "about": json.dumps(pretrained.about),
  }
  with replacing(path) as beside:
    safetensors.numpy.save_file(params, beside, metadata)


def load(path: pathlib.Path) -> Pretrained:
  """Reads a file that `save` wrote; anything else is a UserError."""
  try:
    if path.stat().st_size > _MAX_BYTES:
      raise UserError(f"--init={path}: larger than a student can be")
    with safetensors.safe_open(path, "numpy") as file:
      metadata = file.metadata() or {}
      params = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    class_names = tuple(json.loads(metadata["class_names"]))
    about = dict(json.loads(metadata["about"]))
  except OSError as error:
    raise UserError(f"--init={path}: {error.strerror or error}") from None
  except (safetensors.SafetensorError, KeyError, ValueError, TypeError):
    raise UserError(
      f"--init={path}: not a file of a pretrained student"
    ) from None
  floats = {name: value.astype(np.float32) for name, value in params.items()}
  for name, value in floats.items():
    if not np.isfinite(value).all():
      raise UserError(f"--init={path}: {name} is not finite")
  return Pretrained(floats, class_names, about)


def start_from(
  student: Student, pretrained: Pretrained, groups: ClassGroups
) -> Student:
  """The student, initialised from pretrained parameters.

  Raises a UserError where the file is of another network.
  """
  example = jax.ShapeDtypeStruct((64, 64, 3), np.uint8)
  shapes = jax.eval_shape(student.init, jax.random.key(0), example)
  _check(flatten(shapes), pretrained)

  def init(rng_key, frame):
    return fit(student.init(rng_key, frame), pretrained, groups)

  return student._replace(init=init)


def fit(fresh: Params, pretrained: Pretrained, groups: ClassGroups) -> Params:
  """Pretrained parameters, fitted to the shapes of another set of classes.

  Args:
    fresh: random parameters, used where the file has none.
    pretrained: of the same network, with any number of classes.
    groups: the student's classes, matched by name.
  """
  fresh, given = flatten(fresh), pretrained.params
  if not pretrained.class_names:
    return traverse_util.unflatten_dict({**fresh, **given}, sep="/")
  columns = [_sources(groups, i, pretrained) for i in range(len(groups.names))]
  wide = fresh[f"{_HEAD}/kernel"].shape[2]
  channels = _channels(given[f"{_HEAD}/kernel"], columns, wide)
  fitted = dict(given)
  for name in given:
    if name.startswith(f"{_LAST}/"):
      fitted[name] = _widen(fresh[name], given[name][..., channels])
  kernel = np.zeros((1, 1, wide, given[f"{_HEAD}/kernel"].shape[3]), np.float32)
  # Weights of new channels start at 0, so that the answer does not change.
  kernel[:, :, : len(channels)] = given[f"{_HEAD}/kernel"][:, :, channels]
  for leaf, source in (("kernel", kernel), ("bias", given[f"{_HEAD}/bias"])):
    name = f"{_HEAD}/{leaf}"
    fitted[name] = _columns(fresh[name], source, columns)
  return traverse_util.unflatten_dict(fitted, sep="/")


def _sources(groups, label, pretrained):
  """The classes of the file that make up a class of the student."""
  wanted = {groups.names[label], *groups.members[label]}
  return [i for i, n in enumerate(pretrained.class_names) if n in wanted]


def _channels(kernel, columns, limit):
  """The channels to keep, at most `limit`: those with the largest weights."""
  known = sorted({i for sources in columns for i in sources})
  importance = np.abs(kernel[0, 0][:, known]).sum(1)
  return np.sort(np.argsort(-importance, kind="stable")[:limit])


def _widen(fresh, given):
  """`given` in the first channels of the last axis, `fresh` in the others."""
  return jax.numpy.concatenate([given, fresh[..., given.shape[-1] :]], -1)


def _columns(fresh, source, columns):
  """Averages of the source's last axis; fresh where there is no source."""
  parts = [
    source[..., sources].mean(-1) if sources else fresh[..., label]
    for label, sources in enumerate(columns)
  ]
  return jax.numpy.stack(parts, -1)


def _check(shapes, pretrained):
  """Raises unless the file is of this network, whatever its classes."""
  given = pretrained.params
  wanted = shapes
  if not given:
    raise UserError("--init: the file holds no layer")
  if not pretrained.class_names:
    layers = {_layer(name) for name in given}
    wanted = {n: shape for n, shape in shapes.items() if _layer(n) in layers}
  for name in sorted(wanted.keys() | given.keys()):
    there = given[name].shape if name in given else None
    here = shapes[name].shape if name in shapes else None
    if there == here:
      continue
    is_elastic = _layer(name) in (_HEAD, _LAST) and there is not None and here
    if not is_elastic or _fixed_part(name, there) != _fixed_part(name, here):
      raise UserError(
        f"--init: the file is of another network: {name} is {there}, not {here}"
        "; see --model"
      )
  if not pretrained.class_names:
    return
  num_outputs = given[f"{_HEAD}/bias"].shape
  if num_outputs != (len(pretrained.class_names),):
    raise UserError(
      f"--init: {len(pretrained.class_names)} class names for logits of "
      f"{num_outputs}"
    )


def _layer(name):
  return name.split("/")[0]


def _fixed_part(name, shape):
  """The part of a head's shape that does not depend on the classes."""
  is_kernel = name == f"{_HEAD}/kernel"
  return shape[:2] if is_kernel else shape[:-1]
