"""`mask_rcnn`: torchvision's Mask R-CNN with a ResNet-50 pyramid, on COCO."""

import pathlib
from typing import Literal

from torchvision.models import detection

from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME, MIN_SCORE
from ojd.teachers import base, detector

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


def make_teacher(
  context: base.Context,
  *,
  version: Literal["v1", "v2"] = "v2",
  weights: str = "",
  device: str = "",
  half: bool = False,
) -> detector.Detector:
  """torchvision's Mask R-CNN with a ResNet-50 pyramid, on COCO.

  Args:
    context: not used; frames of any size are labelled.
    version: v2 (47.4 box mAP), or the older v1.
    weights: a file instead of the download, or `random`.
    device: cpu, cuda or cuda:N; empty: a GPU where there is one.
    half: half precision; needs a GPU.
  """
  del context
  build, published = _VERSIONS[version]
  place = detector.pick_device(device)
  dtype = detector.pick_dtype(half, place)
  state = None
  if weights != detector.RANDOM:
    state = (
      detector.read_state(weights, f"--teacher: weights={weights}")
      if weights
      else _download(published)
    )
  # weights_backbone=None: the backbone is in the weights, or random as well.
  model = build(
    weights=None,
    weights_backbone=None,
    num_classes=len(published.meta["categories"]),
    box_score_thresh=MIN_SCORE,
  )
  if state is not None:
    _load(model, state, weights)
  return detector.Detector(model, _class_names(published), place, dtype)


def _class_names(weights):
  """COCO's; unused class ids have no name."""
  names = [n if n != "N/A" else "" for n in weights.meta["categories"]]
  return (BACKGROUND_NAME, *names[1:])


def _load(model, state, path):
  try:
    model.load_state_dict(state)
  except (RuntimeError, TypeError, AttributeError) as error:
    words = detector.in_brief(error)
    raise UserError(
      f"--teacher: weights={path} is of another network: {words}"
    ) from None


def _download(weights):
  try:
    return weights.get_state_dict(progress=False, check_hash=True)
  except OSError as error:  # of the network, or of the folder it goes to
    name = pathlib.PurePosixPath(weights.url).name
    raise UserError(
      f"--teacher=mask_rcnn: {name} could not be downloaded from {weights.url} "
      f"({error}); fetch it by hand and give --teacher=mask_rcnn:weights={name}"
    ) from None
