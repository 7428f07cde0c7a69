"""`raft:FILE`: optical flow by torchvision's RAFT, with weights of a file."""

import pathlib
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional
from torchvision.models import optical_flow as networks

from ojd.errors import UserError
from ojd.teachers import detector

# (frame, frame before) -> [H, W, 2] float32; see `ojd.models.optical_flow`.
Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]
_BUILDERS = (networks.raft_large, networks.raft_small)
# Its features are at an eighth, and its coarsest correlations at an eighth of
# those: they must be two pixels.
_STEP, _LEAST_SIDE = 8, 128


def make_flow(path: pathlib.Path, device: str = "") -> Flow:
  """The flow of the large or the small network, whichever the file is of.

  Args:
    path: a state dict, as torchvision publishes it.
    device: as for a teacher; empty: a GPU where there is one.
  """
  model = _load(path)
  where = detector.pick_device(device)
  model = model.eval().to(where)

  def flow(frame, previous):
    height, width = frame.shape[:2]
    pair = torch.from_numpy(np.stack([frame, previous])).to(where)
    # In -1..1, as it was trained.
    images = pair.permute(0, 3, 1, 2).float() / 127.5 - 1
    bottom, right = (_missing(side) for side in (height, width))
    images = functional.pad(images, (0, right, 0, bottom), mode="replicate")
    with torch.inference_mode():
      found = model(images[:1], images[1:])[-1][0, :, :height, :width]
    return found.permute(1, 2, 0).float().cpu().numpy()

  return flow


def _missing(side):
  """Pixels to the next side that the network takes."""
  return max(-(-side // _STEP) * _STEP, _LEAST_SIDE) - side


def _load(path):
  state = detector.read_state(path, f"flow=raft:{path}")
  for build in _BUILDERS:
    model = build(weights=None)
    try:
      model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError):
      continue
    return model
  raise UserError(
    f"flow=raft:{path} is of another network than raft_large and raft_small"
  )
