"""`mask_rcnn_tiny`: a small Mask R-CNN for the synthetic world."""

import pathlib
from collections.abc import Sequence

import torch

from ojd.labels import ClassGroups
from ojd.teachers import detector, tiny_network
from ojd.teachers.base import TeacherRequest, refuse_argument
from ojd.types import Instances, Labels, Sample

WEIGHTS = (
  pathlib.Path(__file__).parent / "assets" / "mask_rcnn_tiny.safetensors"
)


class MaskRcnnTiny:
  """The teacher: instances of the classes of the synthetic world."""

  class_names = tiny_network.CLASS_NAMES
  is_free = False

  def __init__(
    self,
    model: torch.nn.Module,
    device: torch.device,
    dtype: torch.dtype | None = None,
  ):
    self.device = device
    self._detector = detector.Detector(model, device, dtype)

  def __call__(self, sample: Sample) -> Instances:
    return self._detector(sample.frame)

  def label(self, sample: Sample, groups: ClassGroups) -> Labels:
    return self._detector.label(sample.frame, groups)

  def label_many(
    self, samples: Sequence[Sample], groups: Sequence[ClassGroups]
  ) -> list[Labels]:
    """The labels of several frames, in one pass."""
    return self._detector.label_many([s.frame for s in samples], groups)


def make_teacher(request: TeacherRequest) -> MaskRcnnTiny:
  """With the bundled weights, or those of `--teacher_weights`."""
  refuse_argument(request)
  device = detector.pick_device(request.device)
  dtype = detector.pick_dtype(request.half, device)
  if request.weights == detector.RANDOM:
    return MaskRcnnTiny(tiny_network.build(), device, dtype)
  path = pathlib.Path(request.weights) if request.weights else WEIGHTS
  return MaskRcnnTiny(tiny_network.load(path), device, dtype)
