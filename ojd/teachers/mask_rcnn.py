"""`mask_rcnn`: torchvision's Mask R-CNN with a ResNet-50 pyramid, on COCO.

`mask_rcnn` is the second version (47.4 box mAP), `mask_rcnn:v1` the first.
`--teacher_weights` is a file in the place of the download, or `random`.
"""

import pathlib
from collections.abc import Sequence

import torch
from torchvision.models import detection

from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME, MIN_SCORE, ClassGroups
from ojd.teachers import detector
from ojd.teachers.base import TeacherRequest
from ojd.types import Instances, Labels, Sample

_VERSIONS = {
  "v1": (
    detection.maskrcnn_resnet50_fpn,
    detection.MaskRCNN_ResNet50_FPN_Weights.DEFAULT,
  ),
  "v2": (
    detection.maskrcnn_resnet50_fpn_v2,
    detection.MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT,
  ),
}


class MaskRcnn:
  """Instances of COCO's classes."""

  is_free = False

  def __init__(
    self,
    model: torch.nn.Module,
    class_names,
    device: torch.device,
    dtype: torch.dtype | None = None,
  ):
    self.class_names = class_names
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


def make_teacher(request: TeacherRequest) -> MaskRcnn:
  """Builds the network and loads its weights."""
  version = request.argument or "v2"
  if version not in _VERSIONS:
    raise UserError(
      f"--teacher=mask_rcnn:{version}: known are {', '.join(_VERSIONS)}"
    )
  build, weights = _VERSIONS[version]
  device = detector.pick_device(request.device)
  dtype = detector.pick_dtype(request.half, device)
  path = request.weights
  state = None
  if path != detector.RANDOM:
    state = _read(path) if path else _download(weights)
  # weights_backbone=None: the backbone is in the weights, or random as well.
  model = build(
    weights=None,
    weights_backbone=None,
    num_classes=len(weights.meta["categories"]),
    box_score_thresh=MIN_SCORE,
  )
  if state is not None:
    _load(model, state, path)
  return MaskRcnn(model, _class_names(weights), device, dtype)


def _class_names(weights):
  """COCO's, its unused numbers nameless."""
  names = [n if n != "N/A" else "" for n in weights.meta["categories"]]
  return (BACKGROUND_NAME, *names[1:])


def _load(model, state, path):
  try:
    model.load_state_dict(state)
  except (RuntimeError, TypeError, AttributeError) as error:
    raise UserError(
      f"--teacher_weights={path} is of another network: {_in_brief(error)}"
    ) from None


def _read(path):
  try:
    # weights_only: a stranger's pickle must not run.
    return torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # a broken file breaks its reader in any way
    raise UserError(
      f"--teacher_weights={path} cannot be read: {_in_brief(error)}"
    ) from None


def _download(weights):
  try:
    return weights.get_state_dict(progress=False, check_hash=True)
  except OSError as error:  # of the network, or of the folder it goes to
    name = pathlib.PurePosixPath(weights.url).name
    raise UserError(
      f"--teacher=mask_rcnn: {name} could not be downloaded from {weights.url} "
      f"({error}); fetch it by hand and give --teacher_weights={name}"
    ) from None


def _in_brief(error):
  return " ".join(str(error).split())[:120]
