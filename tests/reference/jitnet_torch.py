"""JITNet and ShadowTutor's student in torch, from the published tables."""

import torch
from torch import nn

from tests.reference import torch_layers
from tests.reference.torch_layers import ConvNorm


class Unit(nn.Module):
  """Norm and ReLU, then 3x3, 1x3 and 3x1, and a shortcut."""

  def __init__(self, cin, cout, stride=1, is_normed=True):
    super().__init__()
    self.preact = torch_layers.norm(cin)
    if cin == cout:
      self.shortcut = lambda active: None
    else:
      self.shortcut = nn.Conv2d(cin, cout, 1, stride)
    conv1 = ConvNorm if is_normed else _Conv
    self.conv1 = conv1(cin, cout, 3, stride)
    self.conv2_1x3 = nn.Conv2d(cout, cout, (1, 3), padding=(0, 1))
    self.conv2_3x1 = nn.Conv2d(cout, cout, (3, 1), padding=(1, 0))
    self.stride = stride

  def forward(self, x):
    active = self.preact(x).relu()
    shortcut = self.shortcut(active)
    if shortcut is None:
      shortcut = x[..., :: self.stride, :: self.stride]
    y = self.conv1(active).relu()
    return shortcut + self.conv2_3x1(self.conv2_1x3(y))


class _Conv(nn.Conv2d):
  def __init__(self, cin, cout, size, stride=1):
    super().__init__(cin, cout, size, stride, size // 2)


class JITNet(nn.Module):
  """At width 0.5, of at most eight classes; layers in the published order."""

  def __init__(self, num_classes):
    super().__init__()
    self.conv1, self.conv2 = ConvNorm(3, 8, 3, 2), ConvNorm(8, 32, 3, 2)
    self.enc1, self.enc2 = Unit(32, 64, 2), Unit(64, 64, 2)
    self.enc3, self.dec1 = Unit(64, 128, 2), Unit(128, 128)
    self.dec2, self.dec3 = Unit(64 + 128, 64), Unit(64 + 64, 32)
    self.decoder_conv2 = ConvNorm(32, 32, 3)
    self.decoder_conv1 = ConvNorm(32, 8, 3)
    self.logits = nn.Conv2d(8, num_classes, 1)

  def forward(self, frames):
    fit = lambda x, like: torch_layers.resize(x, like, align_corners=True)
    half = self.conv1(frames)
    quarter = self.conv2(half)
    enc1 = self.enc1(quarter)
    enc2 = self.enc2(enc1)
    x = self.dec1(self.enc3(enc2))
    x = self.dec2(torch.cat([enc2, fit(x, enc2)], 1))
    x = self.dec3(torch.cat([enc1, fit(x, enc1)], 1))
    x = self.decoder_conv2(fit(fit(x, quarter), half))
    return self.logits(fit(self.decoder_conv1(x), frames))


class Shadow(nn.Module):
  """As published: the frame is resized before the last convolution."""

  def __init__(self, num_classes):
    super().__init__()
    unit = lambda *sizes: Unit(*sizes, is_normed=False)
    self.conv1, self.conv2 = _Conv(3, 8, 3, 2), _Conv(8, 8, 3, 2)
    self.enc1, self.enc2 = unit(8, 64, 2), unit(64, 64, 2)
    self.enc3, self.dec1 = unit(64, 128, 2), unit(128, 64)
    self.dec2, self.dec3 = unit(64 + 64, 32), unit(32 + 64, 32)
    self.decoder_conv1 = _Conv(32, 32, 3)
    self.decoder_conv2 = _Conv(32, 32, 3)
    self.logits = nn.Conv2d(32, num_classes, 1)

  def forward(self, frames):
    fit = torch_layers.resize
    mean = torch.tensor([123.675, 116.28, 103.53], dtype=frames.dtype)
    half = self.conv1(frames - mean[:, None, None])
    enc1 = self.enc1(self.conv2(half))
    enc2 = self.enc2(enc1)
    x = self.dec1(self.enc3(enc2))
    x = self.dec2(torch.cat([fit(x, enc2), enc2], 1))
    x = self.dec3(torch.cat([fit(x, enc1), enc1], 1))
    x = self.decoder_conv2(self.decoder_conv1(fit(x, half)))
    return self.logits(fit(x, frames))
