"""Reads torchvision's MobileNetV2 weights as parameters of a student."""

import pathlib

import flax.traverse_util
import jax
import numpy as np
import torch

from ojd.errors import UserError
from ojd.models import mobilenet_seg, pretrained, student

_MAX_BYTES = 1 << 30
_LEFT_OUT = ("running_mean", "running_var", "num_batches_tracked")
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def load(path: pathlib.Path, model: str) -> pretrained.Pretrained:
  """The backbone of a student, of torchvision's state dict, a .pth.

  Args:
    path: of the state dict; nothing in the file is executed.
    model: mobilenet_v2, with options for another width.
  """
  bound = student.bind(model)
  if bound.name != "mobilenet_v2":
    raise UserError(
      f"--data=torchvision:{path} needs --model=mobilenet_v2, not {model}"
    )
  backbone = convert(read(path), bound.options["width"])
  params = {f"backbone/{name}": value for name, value in backbone.items()}
  return pretrained.Pretrained(params, (), {"model": str(bound)})


def read(path: pathlib.Path) -> dict[str, torch.Tensor]:
  """A state dict; nothing in the file is executed."""
  try:
    if path.stat().st_size > _MAX_BYTES:
      raise UserError(f"--data={path}: larger than a MobileNetV2 can be")
    state = torch.load(path, map_location="cpu", weights_only=True)
  except UserError:
    raise
  except OSError as error:
    raise UserError(f"--data={path}: {error.strerror or error}") from None
  except Exception as error:  # of as many kinds as there is damage
    raise UserError(
      f"--data={path}: no state dict of torch ({type(error).__name__})"
    ) from None
  if not isinstance(state, dict) or not all(isinstance(n, str) for n in state):
    raise UserError(f"--data={path}: no state dict of torch")
  return state


def convert(
  state: dict[str, torch.Tensor], width: float
) -> dict[str, np.ndarray]:
  """Parameters of `mobilenet_seg.Backbone` by "layer/.../leaf".

  Raises a UserError unless the state dict is of such a network. Of what is
  not in a backbone the classifier and the running averages are left out, which
  a student has no use for.
  """
  frame = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
  net = mobilenet_seg.Backbone(width)
  params = jax.eval_shape(net.init, jax.random.key(0), frame)["params"]
  names = _names(params)
  converted, used = {}, set()
  for name, wanted in flax.traverse_util.flatten_dict(params, sep="/").items():
    layer, _, leaf = name.rpartition("/")
    theirs = f"{names[layer]}.{_LEAVES[leaf]}"
    if theirs not in state:
      raise UserError(f"--data: {theirs} is missing: no MobileNetV2")
    converted[name] = _array(state[theirs], theirs, wanted.shape)
    used.add(theirs)
  for name in sorted(state.keys() - used):
    if not (name.startswith("classifier.") or name.endswith(_LEFT_OUT)):
      raise UserError(f"--data: {name} is no part of a MobileNetV2")
  return converted


def _names(params):
  """What torchvision calls the layers of a backbone, by our names."""
  found = {"stem/conv": "0.0", "stem/norm": "0.1"}
  num_blocks = sum(name.startswith("block") for name in params)
  for i in range(1, num_blocks + 1):
    parts = ("expand", "depthwise", "project")
    parts = [part for part in parts if part in params[f"block{i}"]]
    for at, part in enumerate(parts):
      # The last one is part of the block, not a group of its own.
      is_last = part == "project"
      conv, norm = (at, at + 1) if is_last else (f"{at}.0", f"{at}.1")
      found[f"block{i}/{part}/conv"] = f"{i}.conv.{conv}"
      found[f"block{i}/{part}/norm"] = f"{i}.conv.{norm}"
  end = num_blocks + 1
  found |= {"last/conv": f"{end}.0", "last/norm": f"{end}.1"}
  return {ours: f"features.{theirs}" for ours, theirs in found.items()}


def _array(tensor, name, shape):
  """A tensor as numpy, kernels as HWIO, if it has that shape."""
  if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
    raise UserError(f"--data: {name} holds no numbers")
  array = tensor.detach().float().cpu().numpy()
  array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
  if array.shape != shape:
    raise UserError(
      f"--data: {name} is {array.shape}, not {shape}, in a student's order "
      "of axes; is the width of --model right?"
    )
  if not np.isfinite(array).all():
    raise UserError(f"--data: {name} is not finite")
  return array
