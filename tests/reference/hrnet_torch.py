"""HRNetV2 in torch, written from the paper's Figures 1 and 3 and its table."""

import torch
from torch import nn

from tests.reference.torch_layers import Block, ConvNorm, resize


class Module(nn.Module):
  """Parallel branches of two basic blocks, and the fusion of them all."""

  def __init__(self, widths):
    super().__init__()
    self.num = len(widths)
    for i, w in enumerate(widths):
      for block in (1, 2):
        setattr(self, f"branch{i}_block{block}", Block(w, w))
    for i in range(self.num):
      for j in range(self.num):
        if j > i:
          up = ConvNorm(widths[j], widths[i], active=False)
          setattr(self, f"from{j}_to{i}", up)
        elif j < i:
          for k in range(j + 1, i):
            step = ConvNorm(widths[j], widths[j], 3, 2)
            setattr(self, f"from{j}_to{i}_by{k}", step)
          down = ConvNorm(widths[j], widths[i], 3, 2, active=False)
          setattr(self, f"from{j}_to{i}", down)
    self.relu = nn.ReLU()

  def forward(self, branches):
    layer = lambda *words: getattr(self, "".join(map(str, words)))
    seen = [
      layer("branch", i, "_block2")(layer("branch", i, "_block1")(x))
      for i, x in enumerate(branches)
    ]
    out = []
    for i in range(self.num):
      y = seen[i]
      for j in range(self.num):
        x = seen[j]
        if j < i:
          for k in range(j + 1, i):
            x = layer("from", j, "_to", i, "_by", k)(x)
          y = y + layer("from", j, "_to", i)(x)
        elif j > i:
          y = y + resize(layer("from", j, "_to", i)(x), seen[i])
      out.append(self.relu(y))
    return out


class Stage(nn.Module):
  """The new branch, made of the last one, and the modules."""

  def __init__(self, widths, num_modules):
    super().__init__()
    self.new = ConvNorm(widths[-2], widths[-1], 3, 2)
    self.num = num_modules
    for i in range(1, num_modules + 1):
      setattr(self, f"module{i}", Module(widths))

  def forward(self, branches):
    branches = [*branches, self.new(branches[-1])]
    for i in range(1, self.num + 1):
      branches = getattr(self, f"module{i}")(branches)
    return branches


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
