"""HRNetV2 in torch, written from the paper's Figures 1 and 3 and its table."""

import torch
from torch import nn

from tests.reference.torch_layers import Block, ConvNorm, resize


class _Named(nn.Module):
  """Layers by name."""

  def chain(self, x, *names):
    for name in names:
      x = getattr(self, name)(x)
    return x


class Module(_Named):
  """Parallel branches of two basic blocks, and the fusion of them all."""

  def __init__(self, widths):
    super().__init__()
    for i, width in enumerate(widths):
      for block in (1, 2):
        self.add_module(f"branch{i}_block{block}", Block(width, width))
      for j, cin in enumerate(widths):
        for k in range(j + 1, i):
          self.add_module(f"from{j}_to{i}_by{k}", ConvNorm(cin, cin, 3, 2))
        if j != i:
          down = (3, 2) if j < i else ()
          last = ConvNorm(cin, width, *down, active=False)
          self.add_module(f"from{j}_to{i}", last)
    self.relu = nn.ReLU()

  def forward(self, branches):
    seen = [
      self.chain(x, f"branch{i}_block1", f"branch{i}_block2")
      for i, x in enumerate(branches)
    ]
    out = list(seen)
    for i, own in enumerate(seen):
      for j, x in enumerate(seen):
        if j != i:
          by = [f"from{j}_to{i}_by{k}" for k in range(j + 1, i)]
          x = self.chain(x, *by, f"from{j}_to{i}")
          out[i] = out[i] + resize(x, own)
    return [self.relu(y) for y in out]


class Stage(_Named):
  """The new branch, made of the last one, and the modules."""

  def __init__(self, widths, num_modules):
    super().__init__()
    self.new = ConvNorm(widths[-2], widths[-1], 3, 2)
    self.names = [f"module{i + 1}" for i in range(num_modules)]
    for name in self.names:
      self.add_module(name, Module(widths))

  def forward(self, branches):
    return self.chain([*branches, self.new(branches[-1])], *self.names)


class Backbone(nn.Module):
  def __init__(self, widths, stem, num_modules):
    super().__init__()
    self.stem1 = ConvNorm(3, stem, 3, 2)
    self.stem2 = ConvNorm(stem, stem, 3, 2)
    self.bottleneck1 = Block(stem, stem, expand=4)
    self.bottleneck2 = Block(4 * stem, stem, expand=4)
    self.branch0 = ConvNorm(4 * stem, widths[0], 3)
    self.branch1 = ConvNorm(4 * stem, widths[1], 3, 2)
    self.stage2_module1 = Module(widths[:2])
    self.stage3 = Stage(widths[:3], num_modules)

  def forward(self, x):
    x = self.bottleneck2(self.bottleneck1(self.stem2(self.stem1(x))))
    return self.stage3(self.stage2_module1([self.branch0(x), self.branch1(x)]))


class HRNet(nn.Module):
  """Normed frames in, logits of their size out."""

  def __init__(
    self, num_classes, widths=(18, 36, 72, 144), stem=64, num_modules=(3, 2)
  ):
    super().__init__()
    self.backbone = Backbone(widths, stem, num_modules[0])
    self.stage4 = Stage(widths, num_modules[1])
    self.head = ConvNorm(sum(widths), sum(widths), bias=True)
    self.logits = nn.Conv2d(sum(widths), num_classes, 1)

  def forward(self, x):
    branches = self.stage4(self.backbone(x))
    y = torch.cat([resize(b, branches[0]) for b in branches], 1)
    return resize(self.logits(self.head(y)), x)
