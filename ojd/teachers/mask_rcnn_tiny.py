"""`mask_rcnn_tiny`: a small Mask R-CNN for the synthetic world.

Built from torchvision's own classes around a MobileNetV3-small with a narrow
feature pyramid: 1.8 million parameters, 3.7 MB in half precision.
"""

import pathlib

import safetensors
import safetensors.torch
import torch
import torchvision
from torchvision.models.detection import backbone_utils, faster_rcnn, mask_rcnn
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead

from ojd.errors import RequestError
from ojd.labels import BACKGROUND_NAME, MIN_SCORE
from ojd.teachers import detector
from ojd.teachers.base import TeacherRequest, refuse_argument
from ojd.types import Instances, Sample

CLASS_NAMES = (
  BACKGROUND_NAME, "person", "bicycle", "car", "bus", "truck", "dog",
)  # fmt: skip
WEIGHTS = (
  pathlib.Path(__file__).parent / "assets" / "mask_rcnn_tiny.safetensors"
)

# Frames are resized to this for the network, whatever they come as.
MIN_SIDE, MAX_SIDE = 192, 352
PYRAMID = 64  # channels
_HIDDEN = 192  # of the box head
# Layers of the backbone at strides 4, 8, 16 and 32, and their channels.
_LAYERS = {"1": "0", "3": "1", "8": "2", "11": "3"}
_CHANNELS = [16, 24, 48, 96]
_ANCHORS = ((10,), (20,), (40,), (80,), (160,))
_RATIOS = (0.5, 1.0, 2.0)
# Pixels of the synthetic world: their mean and deviation, of 0..1.
_MEAN, _DEVIATION = [0.42, 0.42, 0.41], [0.22, 0.22, 0.22]


def build(score_thresh: float = MIN_SCORE) -> mask_rcnn.MaskRCNN:
  """The network with random weights; 1.8 million parameters."""
  features = torchvision.models.mobilenet_v3_small(weights=None).features[:12]
  backbone = backbone_utils.BackboneWithFPN(
    features, _LAYERS, _CHANNELS, PYRAMID
  )
  anchors = AnchorGenerator(_ANCHORS, (_RATIOS,) * len(_ANCHORS))
  num_classes = len(CLASS_NAMES)
  return mask_rcnn.MaskRCNN(
    backbone,
    num_classes=None,
    min_size=MIN_SIDE,
    max_size=MAX_SIDE,
    image_mean=_MEAN,
    image_std=_DEVIATION,
    rpn_anchor_generator=anchors,
    rpn_head=RPNHead(PYRAMID, len(_RATIOS)),
    rpn_pre_nms_top_n_train=400,
    rpn_pre_nms_top_n_test=300,
    rpn_post_nms_top_n_train=300,
    rpn_post_nms_top_n_test=150,
    rpn_batch_size_per_image=128,
    box_batch_size_per_image=96,
    box_head=faster_rcnn.TwoMLPHead(PYRAMID * 7 * 7, _HIDDEN),
    box_predictor=faster_rcnn.FastRCNNPredictor(_HIDDEN, num_classes),
    box_score_thresh=score_thresh,
    box_detections_per_img=40,
    mask_head=mask_rcnn.MaskRCNNHeads(PYRAMID, (PYRAMID,) * 3, 1),
    mask_predictor=mask_rcnn.MaskRCNNPredictor(PYRAMID, PYRAMID, num_classes),
  )


def save(model: torch.nn.Module, path: pathlib.Path) -> None:
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
    raise RequestError(f"{path} cannot be read: {error}") from None
  for name in sorted(expected.keys() | state.keys()):
    there = state.get(name)
    if name not in expected or there is None:
      raise RequestError(f"{path} is of another network: {name} differs")
    if there.shape != expected[name].shape:
      raise RequestError(
        f"{path} is of another network: {name} is {tuple(there.shape)}, "
        f"not {tuple(expected[name].shape)}"
      )
  floats = {name: value.float() for name, value in state.items()}
  model.load_state_dict(floats, strict=False)
  return model.eval()


class MaskRcnnTiny:
  """The teacher: instances of the classes of the synthetic world."""

  class_names = CLASS_NAMES
  is_free = False

  def __init__(self, model: torch.nn.Module, device: torch.device):
    self._detector = detector.Detector(model, device)

  def __call__(self, sample: Sample) -> Instances:
    return self._detector(sample.frame)


def make_teacher(request: TeacherRequest) -> MaskRcnnTiny:
  """With the bundled weights, or those of `--teacher_weights`."""
  refuse_argument(request)
  device = detector.pick_device(request.device)
  if request.weights == detector.RANDOM:
    return MaskRcnnTiny(build(), device)
  path = pathlib.Path(request.weights) if request.weights else WEIGHTS
  if not request.weights and not path.exists():
    raise RequestError(
      "--teacher=mask_rcnn_tiny: the package holds no trained weights; make "
      "them with python -m experiments.train_teacher --workdir=DIR and give "
      f"--teacher_weights=DIR/{WEIGHTS.name}"
    )
  return MaskRcnnTiny(load(path), device)
