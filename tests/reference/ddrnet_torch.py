"""DDRNet in torch, written from the paper's Figures 4 and 5 and its tables."""

import torch
from torch import nn

from tests.reference import torch_layers
from tests.reference.torch_layers import Block, ConvNorm, resize


def _pair(cin, cout, stride=1):
  """Two basic blocks as one layer, without the last ReLU."""
  pair = nn.Sequential()
  pair.add_module("block1", Block(cin, cout, stride))
  pair.add_module("block2", Block(cout, cout, active=False))
  return pair


class Look(nn.Module):
  """Norm, ReLU, convolution, of what a pooling leaves."""

  def __init__(self, cin, cout, size=1, pool=None, is_pixel=False):
    super().__init__()
    self.pool = pool or nn.Identity()
    self.norm = (torch_layers.PixelNorm if is_pixel else torch_layers.norm)(cin)
    self.relu = nn.ReLU()
    self.conv = nn.Conv2d(cin, cout, size, padding=size // 2, bias=False)

  def forward(self, x):
    return self.conv(self.relu(self.norm(self.pool(x))))


class Pyramid(nn.Module):
  """DAPPM, over maps of a known size: some poolings may leave one pixel."""

  def __init__(self, cin, width, cout, size):
    super().__init__()
    self.scale0 = Look(cin, width)
    for i, (side, stride) in enumerate(((5, 2), (9, 4), (17, 8)), 1):
      pool = nn.AvgPool2d(side, stride, side // 2)
      look = Look(cin, width, 1, pool, is_pixel=max(size) <= stride)
      setattr(self, f"scale{i}", look)
    pool = nn.AdaptiveAvgPool2d(1)
    self.scale4 = Look(cin, width, 1, pool, is_pixel=True)
    for i in range(1, 5):
      setattr(self, f"process{i}", Look(width, width, 3))
    self.compression = Look(5 * width, cout)
    self.shortcut = Look(cin, cout)

  def forward(self, x):
    seen = [self.scale0(x)]
    for scale, process in (
      (self.scale1, self.process1),
      (self.scale2, self.process2),
      (self.scale3, self.process3),
      (self.scale4, self.process4),
    ):
      seen.append(process(resize(scale(x), x) + seen[-1]))
    return self.compression(torch.cat(seen, 1)) + self.shortcut(x)


class Backbone(nn.Module):
  def __init__(self, n):
    super().__init__()
    self.stem1 = ConvNorm(3, n, 3, 2, bias=True)
    self.stem2 = ConvNorm(n, n, 3, 2, bias=True)
    self.low1 = _pair(n, n)
    self.low2 = _pair(n, 2 * n, 2)
    self.low3 = _pair(2 * n, 4 * n, 2)
    self.low4 = _pair(4 * n, 8 * n, 2)
    self.low5 = Block(8 * n, 8 * n, 2, expand=2, active=False)
    self.high3, self.high4 = _pair(2 * n, 2 * n), _pair(2 * n, 2 * n)
    self.high5 = Block(2 * n, 2 * n, expand=2, active=False)
    self.up3 = ConvNorm(4 * n, 2 * n, active=False)
    self.up4 = ConvNorm(8 * n, 2 * n, active=False)
    self.down3_1 = ConvNorm(2 * n, 4 * n, 3, 2, active=False)
    self.down4_1 = ConvNorm(2 * n, 4 * n, 3, 2)
    self.down4_2 = ConvNorm(4 * n, 8 * n, 3, 2, active=False)
    self.relu = nn.ReLU()

  def forward(self, x):
    x = self.relu(self.low1(self.stem2(self.stem1(x))))
    x = self.relu(self.low2(x))
    low3, high3 = self.low3(x), self.high3(x)
    low = low3 + self.down3_1(self.relu(high3))
    high = high3 + resize(self.up3(self.relu(low3)), high3)
    low4, high4 = self.low4(self.relu(low)), self.high4(self.relu(high))
    low = low4 + self.down4_2(self.down4_1(self.relu(high4)))
    high = high4 + resize(self.up4(self.relu(low4)), high4)
    return self.high5(self.relu(high)), self.low5(self.relu(low))


class DDRNet(nn.Module):
  """Normed frames in, logits of their size out; `size` is that of `low`."""

  def __init__(self, num_classes, n, width, head, size=(16, 32)):
    super().__init__()
    self.backbone = Backbone(n)
    self.pyramid = Pyramid(16 * n, width, 4 * n, size)
    self.head = Look(4 * n, head, 3)
    self.head_norm = torch_layers.norm(head)
    self.relu = nn.ReLU()
    self.logits = nn.Conv2d(head, num_classes, 1)

  def forward(self, x):
    high, low = self.backbone(x)
    y = self.head(high + resize(self.pyramid(low), high))
    return resize(self.logits(self.relu(self.head_norm(y))), x)
