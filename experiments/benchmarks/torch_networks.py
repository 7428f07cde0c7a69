"""JITNet and MobileNetV2 in torch, as one would write them: the baselines.

Channels last, norms by the statistics of the frame, bilinear resizes by
`interpolate`, logits before the last resize as in the Flax students; the
weights are torch's own, since only the time matters.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from ojd.models import jitnet, mobilenet_seg

_DILATED = 14  # MobileNetV2's first block with a dilation in place of a stride


class _Norm(nn.BatchNorm2d):
  """Of each frame: no running average, in training and after."""

  def __init__(self, channels):
    super().__init__(channels, track_running_stats=False)


def _conv_norm_relu(num_in, num_out, stride=1):
  conv = nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False)
  return nn.Sequential(conv, _Norm(num_out), nn.ReLU(inplace=True))


class _Unit(nn.Module):
  """Pre-activated: 3x3, then 1x3 and 3x1, and the input beside them."""

  def __init__(self, num_in, num_out, stride=1):
    super().__init__()
    self.preact, self.stride = _Norm(num_in), stride
    self.shortcut = None
    if num_in != num_out:
      self.shortcut = nn.Conv2d(num_in, num_out, 1, stride)
    self.body = nn.Sequential(
      _conv_norm_relu(num_in, num_out, stride),
      nn.Conv2d(num_out, num_out, (1, 3), padding=(0, 1)),
      nn.Conv2d(num_out, num_out, (3, 1), padding=(1, 0)),
    )

  def forward(self, x):
    active = F.relu(self.preact(x))
    if self.shortcut is None:
      beside = x[:, :, :: self.stride, :: self.stride]
    else:
      beside = self.shortcut(active)
    return beside + self.body(active)


class TorchJITNet(nn.Module):
  """Frames [B, H, W, 3] uint8 in, logits [B, C, H, W] out."""

  def __init__(self, num_classes, width=0.5):
    super().__init__()
    floor = jitnet.decoder_floor(num_classes)
    stem = [int(width * w) for w in jitnet.STEM]
    encoder = [int(width * w) for w in jitnet.ENCODER]
    decoder = [max(int(width * w), floor) for w in jitnet.DECODER]
    head = [max(int(width * w), floor) for w in jitnet.HEAD]
    self.conv1 = _conv_norm_relu(3, stem[0], 2)
    self.conv2 = _conv_norm_relu(stem[0], stem[1], 2)
    self.enc1 = _Unit(stem[1], encoder[0], 2)
    self.enc2 = _Unit(encoder[0], encoder[1], 2)
    self.enc3 = _Unit(encoder[1], encoder[2], 2)
    self.dec1 = _Unit(encoder[2], decoder[0])
    self.dec2 = _Unit(encoder[1] + decoder[0], decoder[1])
    self.dec3 = _Unit(encoder[0] + decoder[1], decoder[2])
    self.head = nn.Sequential(
      _conv_norm_relu(decoder[2], head[0]), _conv_norm_relu(head[0], head[1])
    )
    self.logits = nn.Conv2d(head[1], num_classes, 1)

  def forward(self, frames):
    # The bytes of a frame lie channels last already.
    x = frames.permute(0, 3, 1, 2).to(self.logits.weight.dtype)
    full = x.shape[2:]
    x = self.conv1(x)
    half = x.shape[2:]
    x = self.conv2(x)
    quarter = x.shape[2:]
    first = self.enc1(x)
    second = self.enc2(first)
    x = self.dec1(self.enc3(second))
    x = self.dec2(torch.cat([second, _resize(x, second.shape[2:])], 1))
    x = self.dec3(torch.cat([first, _resize(x, first.shape[2:])], 1))
    x = self.head(_resize(_resize(x, quarter), half))
    return _resize(self.logits(x), full)


def _resize(x, size):
  return F.interpolate(x, size, mode="bilinear", align_corners=True)


class TorchMobileNet(nn.Module):
  """Torchvision's with DeepLabV3's head; no dropout, as a student has none.

  The norm of the one pixel of image pooling is scale and bias alone.
  """

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
    return _resize(logits, x.shape[2:])


class _Scale(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(channels))
    self.bias = nn.Parameter(torch.zeros(channels))

  def forward(self, x):
    return x * self.weight[:, None, None] + self.bias[:, None, None]


_NETWORKS = {"jitnet": TorchJITNet, "mobilenet_v2": TorchMobileNet}


def make(
  model: str, num_classes: int, device: str, precision: str = "float32"
) -> nn.Module:
  """A network on a device, channels last, its weights in a precision."""
  net = _NETWORKS[model](num_classes).to(device, getattr(torch, precision))
  return net.to(memory_format=torch.channels_last)


def compiled(net: nn.Module) -> nn.Module:
  """The same network by torch's compiler.

  On a GPU with its CUDA graphs, without which a small network waits for the
  host.
  """
  is_gpu = next(net.parameters()).device.type == "cuda"
  return torch.compile(net, mode="reduce-overhead" if is_gpu else None)


def forward_fn(net: nn.Module, frame):
  """A call without arguments: the classes of a frame, done on return."""
  device = next(net.parameters()).device
  frames = torch.tensor(frame, device=device)[None]

  def forward():
    with torch.inference_mode():
      classes = net(frames).argmax(1).to(torch.uint8)
    _wait(device)
    return classes

  return forward


def update_fn(net: nn.Module, frame, classes, precision: str = "float32"):
  """A call without arguments: one step of SGD with momentum."""
  device = next(net.parameters()).device
  frames = torch.tensor(frame, device=device)[None]
  targets = torch.tensor(classes, device=device)[None].long()
  optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

  def update():
    optimizer.zero_grad(set_to_none=True)
    with _autocast(device, precision):
      loss = F.cross_entropy(net(frames), targets)
    loss.backward()
    optimizer.step()
    _wait(device)

  return update


def _autocast(device, precision):
  """Weights stay float32; what can be is computed in less."""
  is_half = precision != "float32"
  return torch.autocast(device.type, getattr(torch, precision), is_half)


def _wait(device):
  if device.type == "cuda":
    torch.cuda.synchronize(device)
