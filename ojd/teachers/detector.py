"""What torchvision's detectors take and give, as this project has it."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchvision.models.detection import faster_rcnn, mask_rcnn, rpn

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.labels import MIN_MASK
from ojd.teachers import device_labels
from ojd.types import Instances, Labels

RANDOM = "random"  # in the place of a file of weights: to be timed


def to_tensor(frame: np.ndarray) -> torch.Tensor:
  """[H, W, 3] uint8 -> [3, H, W] float in 0..1."""
  # A copy: torch dislikes arrays that it may not write to.
  return torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 255


class Detector:
  """A Mask R-CNN on a device, from a frame to Instances or Labels."""

  def __init__(
    self,
    model: torch.nn.Module,
    device: torch.device,
    dtype: torch.dtype | None = None,
    labels_on_device: bool | None = None,
  ):
    """Moves the model there.

    Args:
      model: of torchvision's classes; it is the detector's from here on.
      device: where it runs.
      dtype: in which its networks compute; None for that of their weights.
      labels_on_device: whether labels are made there too; None for the faster,
        which is on the host where the device is a CPU.
    """
    self._model, self._device = model.eval().to(device), device
    self._dtype = dtype
    if dtype is not None:
      _keep_float_between_networks(self._model)
    if labels_on_device is None:
      labels_on_device = device.type == "cuda"
    self._labels_on_device = labels_on_device

  def __call__(self, frame: np.ndarray) -> Instances:
    return to_instances(self._detect(frame))

  def label(self, frame: np.ndarray, groups: labels_lib.ClassGroups) -> Labels:
    """The labels of a frame; JAX arrays if they were made on its device."""
    return self._labels(self._detect(frame), frame, groups)

  def label_many(
    self,
    frames: Sequence[np.ndarray],
    groups: Sequence[labels_lib.ClassGroups],
  ) -> list[Labels]:
    """`label` of several frames in one pass, whatever their sizes."""
    outputs = self._detect_all(frames)
    return list(map(self._labels, outputs, frames, groups))

  def _labels(self, output, frame, groups):
    size = frame.shape[:2]
    if self._labels_on_device:
      return device_labels.from_output(output, groups, *size)
    return labels_lib.from_instances(to_instances(output), groups, *size)

  def _detect(self, frame):
    """torchvision's output, on the device."""
    (output,) = self._detect_all([frame])
    return output

  def _detect_all(self, frames):
    images = [to_tensor(frame).to(self._device) for frame in frames]
    with torch.inference_mode(), self._precision():
      return self._model(images)

  def _precision(self):
    if self._dtype is None:
      return contextlib.nullcontext()
    return torch.autocast(self._device.type, self._dtype)


def _keep_float_between_networks(model):
  """Lets boxes, and all that is computed from them, be float32.

  In float16 a pixel is the smallest step beyond 1024, and the offsets by which
  torchvision tells classes apart when it drops doubles run into infinity.
  """
  networks = (
    rpn.RPNHead,
    faster_rcnn.FastRCNNPredictor,
    mask_rcnn.MaskRCNNPredictor,
  )
  for module in model.modules():
    # The backbone's maps also say of which type the anchors are.
    if module is model.backbone or isinstance(module, networks):
      module.register_forward_hook(lambda module, inputs, x: _to_float(x))


def _to_float(outputs: Any) -> Any:
  """Tensors in any nesting as float32."""
  if isinstance(outputs, torch.Tensor):
    return outputs.float()
  if isinstance(outputs, dict):
    return {name: _to_float(x) for name, x in outputs.items()}
  return [_to_float(x) for x in outputs]


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
    raise UserError(
      f"--teacher_device={name}: unknown; cpu, cuda or cuda:N"
    ) from None
  if device.type == "cuda" and not _has_gpu():
    raise UserError(f"--teacher_device={name}: there is no GPU here")
  return device


def pick_dtype(half: bool, device: torch.device) -> torch.dtype | None:
  """For a Detector; float16 where half precision is asked for."""
  if not half:
    return None
  if device.type != "cuda":
    raise UserError(
      f"--teacher_half: needs a GPU; the teacher's device is {device}"
    )
  return torch.float16


def _has_gpu():
  return torch.cuda.is_available()
