"""torchvision's detectors as teachers: their devices, answers and labels.

Labels can be made where the detector's output is. A GPU would otherwise copy a
mask of the frame's size to the host and back for each instance. JAX gets the
labels without a copy where it computes on the same device. The rules are those
of `ojd.labels.from_instances`.
"""

import contextlib
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchvision.models.detection import faster_rcnn, mask_rcnn, rpn

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.types import BACKGROUND, IGNORE, Array, Instances, Labels, Sample

RANDOM = "random"  # instead of a file of weights, for timing


def to_tensor(frame: np.ndarray) -> torch.Tensor:
  """[H, W, 3] uint8 -> [3, H, W] float in 0..1."""
  # A copy: torch dislikes arrays that it may not write to.
  return torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 255


class Detector:
  """A Mask R-CNN on a device as a teacher."""

  is_free = False

  def __init__(
    self,
    model: torch.nn.Module,
    class_names: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype | None = None,
    labels_on_device: bool | None = None,
  ):
    """Moves the model to the device.

    Args:
      model: of torchvision's classes; it belongs to the detector from here on.
      class_names: by the model's class id.
      device: where it runs.
      dtype: in which its networks compute; None for that of their weights.
      labels_on_device: whether labels are made there too; None for the faster,
        which is on the host where the device is a CPU.
    """
    self.class_names, self.device = class_names, device
    self._model = model.eval().to(device)
    self._dtype = dtype
    if dtype is not None:
      _keep_float_between_networks(self._model)
    if labels_on_device is None:
      labels_on_device = device.type == "cuda"
    self._labels_on_device = labels_on_device

  def __call__(self, sample: Sample) -> Instances:
    (output,) = self._detect([sample])
    return to_instances(output)

  def label(self, sample: Sample, groups: labels_lib.ClassGroups) -> Labels:
    """The labels of a frame; JAX arrays if they were made on its device."""
    return self.label_many([sample], [groups])[0]

  def label_many(
    self, samples: Sequence[Sample], groups: Sequence[labels_lib.ClassGroups]
  ) -> list[Labels]:
    """`label` of several frames in one pass, whatever their sizes."""
    return list(map(self._labels, self._detect(samples), samples, groups))

  def _labels(self, output, sample, groups):
    size = sample.frame.shape[:2]
    if self._labels_on_device:
      return labels_on_device(output, groups, *size)
    return labels_lib.from_instances(to_instances(output), groups, *size)

  def _detect(self, samples):
    """torchvision's outputs, on the device."""
    images = [to_tensor(sample.frame).to(self.device) for sample in samples]
    precision = contextlib.nullcontext()
    if self._dtype is not None:
      precision = torch.autocast(self.device.type, self._dtype)
    with torch.inference_mode(), precision:
      return self._model(images)


def _keep_float_between_networks(model):
  """Makes boxes, and all that is computed from them, float32.

  In float16 a pixel is the smallest step beyond 1024, and the offsets by which
  torchvision adds to boxes of different classes run into infinity.
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
    masks=(output["masks"][:, 0] >= labels_lib.MIN_MASK).cpu().numpy(),
  )


def read_state(path: pathlib.Path | str, name: str) -> dict[str, Any]:
  """A state dict of a file; `name` says in an error what was asked for."""
  try:
    # weights_only: an untrusted pickle must not run.
    return torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # a broken file breaks its reader in any way
    raise UserError(f"{name} cannot be read: {in_brief(error)}") from None


def in_brief(error: Exception) -> str:
  """The beginning of an error of torch, in one line."""
  return " ".join(str(error).split())[:120]


def pick_device(name: str) -> torch.device:
  """The device of a name; empty is a GPU where there is one."""
  try:
    device = torch.device(name or ("cuda" if _has_gpu() else "cpu"))
  except RuntimeError:
    raise UserError(f"device={name}: unknown; cpu, cuda or cuda:N") from None
  if device.type == "cuda" and not _has_gpu():
    raise UserError(f"device={name}: there is no GPU here")
  return device


def pick_dtype(half: bool, device: torch.device) -> torch.dtype | None:
  """For a Detector; float16 where half precision is asked for."""
  if not half:
    return None
  if device.type != "cuda":
    raise UserError(f"half=true needs a GPU; the teacher's device is {device}")
  return torch.float16


def _has_gpu():
  return torch.cuda.is_available()


def labels_on_device(
  output: dict[str, torch.Tensor],
  groups: labels_lib.ClassGroups,
  height: int,
  width: int,
) -> Labels:
  """Labels of a torchvision detector's output for one frame.

  Args:
    output: boxes [N, 4] x0 y0 x1 y1, labels [N], scores [N] and masks
      [N, 1, H, W] in 0..1, on one device.
    groups: the student's classes.
    height: H.
    width: W.

  Returns:
    JAX arrays on the output's device where JAX computes on it, else numpy.
  """
  with torch.inference_mode():
    classes, weights = _make(output, groups, height, width)
  if classes.is_cuda:
    # JAX has streams of its own. A teacher's time ends here as well.
    torch.cuda.current_stream(classes.device).synchronize()
  return Labels(hand_over(classes), hand_over(weights))


def hand_over(tensor: torch.Tensor) -> Array:
  """A contiguous tensor as JAX's, without a copy; else as numpy's.

  Nobody may write to the tensor afterwards.
  """
  # A teacher's own process has no use for JAX, which would take much of the
  # GPU's memory: it gets what was imported already, or nothing.
  jax = sys.modules.get("jax")
  if jax is None or not _is_on(tensor, jax.devices()[0]):
    return tensor.cpu().numpy()
  return jax.dlpack.from_dlpack(tensor)


def _is_on(tensor, jax_device):
  """Whether JAX, which says "gpu" for "cuda", means the same device."""
  if tensor.is_cuda:
    is_gpu = jax_device.platform in ("gpu", "cuda")
    return is_gpu and jax_device.local_hardware_id == tensor.device.index
  return tensor.device.type == jax_device.platform == "cpu"


def _make(output, groups, height, width):
  """Class map [H, W] uint8 and weights [H, W] float32 on their device."""
  device = output["boxes"].device
  lookup = torch.tensor(groups.lookup, device=device)
  labels = lookup[output["labels"].long()]
  # To zero, as in numpy: boxes beyond the left edge as well.
  whole = output["boxes"].float().to(torch.int32)
  x0, x1 = (whole[:, i].clamp(0, width) for i in (0, 2))
  y0, y1 = (whole[:, i].clamp(0, height) for i in (1, 3))
  kept = (output["scores"] >= labels_lib.MIN_SCORE) & (labels != BACKGROUND)
  kept &= (y1 > y0) & (x1 > x0)
  # [N, H] and [N, W]: a box is where both are true. What was not kept is
  # nowhere; to leave it out would make the host wait for its number.
  rows = _is_between(y0, y1, height) & kept[:, None]
  columns = _is_between(x0, x1, width)
  classes = _paint(output["masks"][:, 0], labels, rows, columns)
  rows = _is_between(*_grow(y0, y1), height) & kept[:, None]
  columns = _is_between(*_grow(x0, x1), width)
  weights = _weigh(rows, columns).masked_fill_(classes == IGNORE, 0.0)
  return classes, weights


def _is_between(low, high, size):
  """[N, size] bool: which pixels are from `low` to before `high`; [N] each."""
  pixels = torch.arange(size, device=low.device)
  return (pixels >= low[:, None]) & (pixels < high[:, None])


def _grow(low, high):
  """The sides of boxes with their margin, outwards to whole pixels."""
  low, high = low.double(), high.double()
  margin = labels_lib.BOX_MARGIN * (high - low)
  return (low - margin).floor(), (high + margin).ceil()


def _paint(masks, labels, rows, columns):
  """The largest label of those whose mask is at a pixel; [H, W] uint8."""
  if not len(labels):  # there is no largest of none
    shape = rows.shape[1], columns.shape[1]
    return torch.full(
      shape, BACKGROUND, dtype=torch.uint8, device=labels.device
    )
  is_object = masks >= labels_lib.MIN_MASK
  is_object &= rows[:, :, None]
  is_object &= columns[:, None, :]
  return (is_object * labels[:, None, None]).amax(0).contiguous()


def _weigh(rows, columns):
  """Heavy where any box is, as a product of matrices; [H, W] float32."""
  counts = rows.float().T @ columns.float()
  weights = torch.full_like(counts, labels_lib.WEIGHT_OUTSIDE)
  return weights.masked_fill_(counts > 0, labels_lib.WEIGHT_INSIDE).contiguous()
