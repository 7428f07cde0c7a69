"""`mask_rcnn_tiny`: a small Mask R-CNN for the synthetic world.

It is built from torchvision's classes around a narrow residual backbone. The
masks are read from a map at half the frame's size: what a person's legs or a
bicycle's frame are at the sizes of a video frame would be lost in the quarter
at which these networks usually end.
"""

import collections
import pathlib

import safetensors
import safetensors.torch
import torch.nn.functional as F
from torch import nn
from torchvision import ops
from torchvision.models import resnet
from torchvision.models.detection import faster_rcnn, mask_rcnn, rpn
from torchvision.ops import feature_pyramid_network

from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME, MIN_SCORE
from ojd.teachers import base, detector

WEIGHTS = (
  pathlib.Path(__file__).parent / "assets" / "mask_rcnn_tiny.safetensors"
)
CLASS_NAMES = (
  BACKGROUND_NAME, "person", "bicycle", "car", "bus", "truck", "dog",
)  # fmt: skip
FINE = "fine"  # the map at half the frame's size, among the backbone's outputs
FINE_CHANNELS = 32

# Frames are resized to this for the network, whatever they come as.
_MIN_SIDE, _MAX_SIDE = 192, 352
_STEM, _WIDTHS, _BLOCKS = 24, (32, 64, 128, 160), 2
_PYRAMID = 64  # channels
_HIDDEN = 192  # of the box head
_ANCHORS = ((10,), (20,), (40,), (80,), (160,))
_RATIOS = (0.5, 1.0, 2.0)
# Pixels of the synthetic world: their mean and deviation, of 0..1.
_MEAN, _DEVIATION = [0.42, 0.42, 0.41], [0.22, 0.22, 0.22]


class Backbone(nn.Module):
  """Residual stages, a pyramid over them, and a map of half the size."""

  def __init__(self):
    super().__init__()
    self.stem = nn.Sequential(
      nn.Conv2d(3, _STEM, 3, 2, 1, bias=False),
      nn.BatchNorm2d(_STEM),
      nn.ReLU(),
    )
    inputs = (_STEM, *_WIDTHS[:-1])
    self.stages = nn.ModuleList(map(_stage, inputs, _WIDTHS))
    self.pyramid = ops.FeaturePyramidNetwork(
      list(_WIDTHS), _PYRAMID, feature_pyramid_network.LastLevelMaxPool()
    )
    self.from_stem = nn.Conv2d(_STEM, FINE_CHANNELS, 1)
    self.from_pyramid = nn.Conv2d(_PYRAMID, FINE_CHANNELS, 1)
    self.refine = resnet.BasicBlock(FINE_CHANNELS, FINE_CHANNELS)
    self.out_channels = _PYRAMID  # torchvision asks for it

  def forward(self, images):
    """[N, 3, H, W] -> maps by name, the finest pyramid level first."""
    stem = x = self.stem(images)
    maps = collections.OrderedDict()
    for level, stage in enumerate(self.stages):
      maps[str(level)] = x = stage(x)
    maps = self.pyramid(maps)
    coarse = F.interpolate(
      self.from_pyramid(maps["0"]), size=stem.shape[-2:], mode="bilinear"
    )
    maps[FINE] = self.refine(coarse + self.from_stem(stem))
    return maps


class _PyramidProposals(nn.Module):
  """Proposals from the pyramid alone; the fine map is for masks."""

  def __init__(self, proposals: rpn.RegionProposalNetwork):
    super().__init__()
    self.proposals = proposals

  def forward(self, images, maps, targets=None):
    pyramid = {name: x for name, x in maps.items() if name != FINE}
    return self.proposals(images, pyramid, targets)


def _stage(inputs, outputs):
  """Residual blocks; the first halves the size."""
  shortcut = nn.Sequential(
    nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs)
  )
  first = resnet.BasicBlock(inputs, outputs, 2, shortcut)
  rest = (resnet.BasicBlock(outputs, outputs) for _ in range(_BLOCKS - 1))
  return nn.Sequential(first, *rest)


def build(score_thresh: float = MIN_SCORE) -> mask_rcnn.MaskRCNN:
  """The network with random weights; 2.6 million parameters."""
  num_classes = len(CLASS_NAMES)
  levels = [str(level) for level in range(len(_WIDTHS))]
  model = mask_rcnn.MaskRCNN(
    Backbone(),
    num_classes=None,
    min_size=_MIN_SIDE,
    max_size=_MAX_SIDE,
    image_mean=_MEAN,
    image_std=_DEVIATION,
    rpn_anchor_generator=rpn.AnchorGenerator(
      _ANCHORS, (_RATIOS,) * len(_ANCHORS)
    ),
    rpn_head=rpn.RPNHead(_PYRAMID, len(_RATIOS)),
    rpn_pre_nms_top_n_train=400,
    rpn_pre_nms_top_n_test=300,
    rpn_post_nms_top_n_train=300,
    rpn_post_nms_top_n_test=150,
    rpn_batch_size_per_image=128,
    box_batch_size_per_image=96,
    box_roi_pool=ops.MultiScaleRoIAlign(levels, 7, 2, canonical_scale=112),
    box_head=faster_rcnn.TwoMLPHead(_PYRAMID * 7 * 7, _HIDDEN),
    box_predictor=faster_rcnn.FastRCNNPredictor(_HIDDEN, num_classes),
    box_score_thresh=score_thresh,
    box_detections_per_img=40,
    mask_roi_pool=ops.MultiScaleRoIAlign([FINE], 14, 2),
    mask_head=mask_rcnn.MaskRCNNHeads(FINE_CHANNELS, (_PYRAMID,) * 3, 1),
    mask_predictor=mask_rcnn.MaskRCNNPredictor(_PYRAMID, _PYRAMID, num_classes),
  )
  model.rpn = _PyramidProposals(model.rpn)
  return model


def save(model: nn.Module, path: pathlib.Path) -> None:
  """Writes the weights in half precision, counters left out."""
  state = {
    name: value.half().contiguous()
    for name, value in model.state_dict().items()
    if value.is_floating_point()
  }
  safetensors.torch.save_file(state, path)


def load(path: pathlib.Path) -> mask_rcnn.MaskRCNN:
  """The network with weights of a file that `save` wrote."""
  model = build()
  expected = {
    name: value
    for name, value in model.state_dict().items()
    if value.is_floating_point()
  }
  try:
    state = safetensors.torch.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise UserError(f"{path} cannot be read: {error}") from None
  for name in sorted(expected.keys() | state.keys()):
    there = state.get(name)
    if name not in expected or there is None:
      raise UserError(f"{path} is of another network: {name} differs")
    if there.shape != expected[name].shape:
      raise UserError(
        f"{path} is of another network: {name} is {tuple(there.shape)}, "
        f"not {tuple(expected[name].shape)}"
      )
  floats = {name: value.float() for name, value in state.items()}
  model.load_state_dict(floats, strict=False)
  return model.eval()


def make_teacher(
  context: base.Context,
  *,
  weights: str = "",
  device: str = "",
  half: bool = False,
) -> detector.Detector:
  """A small Mask R-CNN for the synthetic world, bundled.

  Args:
    context: not used; frames of any size are labelled.
    weights: a file of `experiments.train_teacher`, or `random`.
    device: cpu, cuda or cuda:N; empty: a GPU where there is one.
    half: half precision; needs a GPU.
  """
  del context
  place = detector.pick_device(device)
  dtype = detector.pick_dtype(half, place)
  if weights == detector.RANDOM:
    model = build()
  else:
    model = load(pathlib.Path(weights) if weights else WEIGHTS)
  return detector.Detector(model, CLASS_NAMES, place, dtype)
