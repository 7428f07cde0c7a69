"""MobileNetV2 with DeepLabV3's head, of torchvision's modules: the baseline.

Norms are by the statistics of the frame and there is no dropout, as a student
has it; that of the one pixel of image pooling is scale and bias alone.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from ojd.models import mobilenet_seg

_DILATED = 14  # the first block of the stage whose stride becomes a dilation


class TorchMobileNet(nn.Module):
  """Frames [B, H, W, 3] in, logits [B, C, H, W] out."""

  def __init__(self, num_classes, width=1.0):
    super().__init__()
    self.features = mobilenet_v2(weights=None, width_mult=width).features
    for i, block in enumerate(self.features[_DILATED:-1]):
      conv = block.conv[1][0]  # the depthwise one
      conv.stride = (1, 1)
      if i:
        conv.dilation = conv.padding = (2, 2)
    num_features = self.features[-1][0].out_channels
    self.head = DeepLabHead(num_features, num_classes, mobilenet_seg.RATES)
    self.head[0].project[3].p = 0.0
    for module in self.modules():
      if isinstance(module, nn.BatchNorm2d):
        module.track_running_stats = False
        module.running_mean = module.running_var = None
        module.num_batches_tracked = None
    self.head[0].convs[-1][2] = _Scale(mobilenet_seg.HEAD)
    mean = torch.tensor([0.485, 0.456, 0.406])
    deviation = torch.tensor([0.229, 0.224, 0.225])
    self.register_buffer("mean", 255 * mean[:, None, None])
    self.register_buffer("deviation", 255 * deviation[:, None, None])

  def forward(self, frames):
    # The bytes of a frame lie channels last already.
    x = frames.permute(0, 3, 1, 2).to(self.mean.dtype)
    logits = self.head(self.features((x - self.mean) / self.deviation))
    return F.interpolate(
      logits, x.shape[2:], mode="bilinear", align_corners=True
    )


class _Scale(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(channels))
    self.bias = nn.Parameter(torch.zeros(channels))

  def forward(self, x):
    return x * self.weight[:, None, None] + self.bias[:, None, None]


def make(
  num_classes: int, device: str, precision: str = "float32"
) -> TorchMobileNet:
  """The network on a device, channels last, its weights in a precision."""
  net = TorchMobileNet(num_classes).to(device, getattr(torch, precision))
  return net.to(memory_format=torch.channels_last)
