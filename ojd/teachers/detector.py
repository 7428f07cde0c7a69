"""What torchvision's detectors take and give, as this project has it."""

import numpy as np
import torch

from ojd.errors import RequestError
from ojd.labels import MIN_MASK
from ojd.types import Instances

RANDOM = "random"  # in the place of a file of weights: to be timed


def to_tensor(frame: np.ndarray) -> torch.Tensor:
  """[H, W, 3] uint8 -> [3, H, W] float in 0..1."""
  # A copy: torch dislikes arrays that it may not write to.
  return torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 255


class Detector:
  """A Mask R-CNN on a device, from a frame to Instances on the host."""

  def __init__(self, model: torch.nn.Module, device: torch.device):
    self._model, self._device = model.eval().to(device), device

  def __call__(self, frame: np.ndarray) -> Instances:
    image = to_tensor(frame).to(self._device)
    with torch.inference_mode():
      (output,) = self._model([image])
    return to_instances(output)


def to_instances(output: dict[str, torch.Tensor]) -> Instances:
  """One frame's output of a Mask R-CNN -> Instances with full-size masks."""
  boxes = output["boxes"].cpu().numpy()
  return Instances(
    boxes=boxes[:, [1, 0, 3, 2]],
    scores=output["scores"].cpu().numpy(),
    class_ids=output["labels"].cpu().numpy().astype(np.int32),
    masks=(output["masks"][:, 0] >= MIN_MASK).cpu().numpy(),
  )


def pick_device(name: str) -> torch.device:
  """The device of a name; empty is a GPU where there is one."""
  try:
    device = torch.device(name or ("cuda" if _has_gpu() else "cpu"))
  except RuntimeError:
    raise RequestError(
      f"--teacher_device={name}: unknown; cpu, cuda or cuda:N"
    ) from None
  if device.type == "cuda" and not _has_gpu():
    raise RequestError(f"--teacher_device={name}: there is no GPU here")
  return device


def _has_gpu():
  return torch.cuda.is_available()
