"""Labels of a detector's output, made where the output is; torch.

The rules are those of `ojd.labels.from_instances`. What a GPU would have to
copy to the host and back, a mask of the frame's size for each instance, stays
there; JAX gets the labels without a copy where it computes on the same device.
"""

import sys

import torch

from ojd import labels as labels_lib
from ojd.types import BACKGROUND, IGNORE, Array, Labels


def from_output(
  output: dict[str, torch.Tensor],
  groups: labels_lib.ClassGroups,
  height: int,
  width: int,
) -> Labels:
  """Labels of what a torchvision detector says of one frame.

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
