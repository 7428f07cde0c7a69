"""Layers of torch in the vocabulary of the networks here, and their weights.

A torch module whose children are named as the layers of a Flax network takes
that network's parameters; how it was put together is its own affair.
"""

import jax
import numpy as np
import torch
from torch import nn

from ojd.models import pretrained

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def norm(channels):
  """By the statistics of the batch, which is one frame."""
  return nn.BatchNorm2d(channels, track_running_stats=False)


class PixelNorm(nn.Module):
  """Scale and bias of a norm over one pixel."""

  def __init__(self, channels):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(channels))
    self.bias = nn.Parameter(torch.zeros(channels))

  def forward(self, x):
    return x * self.weight[:, None, None] + self.bias[:, None, None]


class ConvNorm(nn.Module):
  """Convolution and norm, and a ReLU where `active`."""

  def __init__(self, cin, cout, size=1, stride=1, bias=False, active=True):
    super().__init__()
    self.conv = nn.Conv2d(cin, cout, size, stride, size // 2, bias=bias)
    self.norm = norm(cout)
    self.relu = nn.ReLU() if active else nn.Identity()

  def forward(self, x):
    return self.relu(self.norm(self.conv(x)))


class Block(nn.Module):
  """A residual block: of 3x3 and 3x3, or with `expand` of 1x1, 3x3, 1x1."""

  def __init__(self, cin, width, stride=1, expand=None, active=True):
    super().__init__()
    cout = width * (expand or 1)
    if expand:
      self.conv1 = ConvNorm(cin, width)
      self.conv2 = ConvNorm(width, width, 3, stride)
      self.conv3 = ConvNorm(width, cout, active=False)
    else:
      self.conv1 = ConvNorm(cin, width, 3, stride)
      self.conv2 = ConvNorm(width, width, 3, active=False)
      self.conv3 = nn.Identity()
    if stride > 1 or cin != cout:
      self.shortcut = ConvNorm(cin, cout, 1, stride, active=False)
    else:
      self.shortcut = nn.Identity()
    self.relu = nn.ReLU() if active else nn.Identity()

  def forward(self, x):
    y = self.conv3(self.conv2(self.conv1(x)))
    return self.relu(y + self.shortcut(x))


def resize(x, like, align_corners=False):
  """Bilinear, edges to edges, to the size of another map."""
  return nn.functional.interpolate(
    x, like.shape[2:], mode="bilinear", align_corners=align_corners
  )


def nchw(x, requires_grad=True):
  """[B, H, W, C] of numpy -> [B, C, H, W] of torch."""
  return torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=requires_grad)


def nhwc(x):
  """And back."""
  return x.detach().numpy().transpose(0, 2, 3, 1)


def pixels(frames):
  """[B, 3, H, W], 0..255 -> the same normed."""
  row = lambda values: torch.tensor(values, dtype=frames.dtype)[:, None, None]
  return (frames / 255 - row(MEAN)) / row(DEVIATION)


def load(module, params):
  """Fills a module, in double precision, and returns it; every weight once."""
  state = {}
  for name, value in pretrained.flatten(params).items():
    *layer, leaf = name.split("/")
    value = torch.tensor(np.array(value, np.float64))
    if leaf == "kernel":
      value = value.permute(3, 2, 0, 1)
    state[".".join([*layer, _LEAVES[leaf]])] = value
  module.double().load_state_dict(state)
  return module


def as_flax(module, value_fn=lambda p: p.detach()):
  """What a function makes of each parameter, by Flax' names and axes, flat."""
  found = {}
  for name, p in module.named_parameters():
    *layer, leaf = name.split(".")
    value = value_fn(p).numpy()
    if leaf == "weight":
      leaf = "kernel" if value.ndim == 4 else "scale"
    axes = (2, 3, 1, 0) if value.ndim == 4 else (0,)
    found["/".join([*layer, leaf])] = value.transpose(axes)
  return found


def stirred(model, x):
  """Parameters of a Flax module none of which is a one or a zero."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
  rng = np.random.default_rng(1)
  draw = lambda x: 0.5 * rng.standard_normal(x.shape) / x.shape[-1] ** 0.5
  return jax.tree.map(lambda x: draw(x) + (x.ndim == 1), shapes)


def error(ours, theirs):
  """Relative, of all numbers together."""
  assert ours.shape == theirs.shape
  return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def worst(grads, expected):
  """The largest of the relative errors of flat gradients.

  A norm undoes what is constant over its channel, so the biases before one have
  no gradient but rounding: measured against the largest, not their own.
  """
  assert grads.keys() == expected.keys()
  least = 1e-3 * max(np.linalg.norm(g) for g in expected.values())
  error = lambda a, b: np.linalg.norm(a - b) / max(np.linalg.norm(b), least)
  return max((error(grads[n], expected[n]), n) for n in expected)


def count_operations(module, height, width):
  """MAC of convolutions, and of all else what counters of operations add.

  That is one for a bias, for a value through a ReLU and for a value into a
  pooling, and two for a value through a norm.
  """
  macs = others = 0

  def note(layer, inputs, out):
    nonlocal macs, others
    if isinstance(layer, nn.Conv2d):
      macs += out[0].numel() * layer.weight[0].numel()
      others += out.numel() if layer.bias is not None else 0
    elif isinstance(layer, (nn.BatchNorm2d, PixelNorm)):
      others += 2 * out.numel()
    elif isinstance(layer, nn.ReLU):
      others += out.numel()
    elif isinstance(layer, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
      others += inputs[0].numel()

  module.to("meta")
  for layer in module.modules():
    layer.register_forward_hook(note)
  module(torch.empty(1, 3, height, width, device="meta"))
  return macs, others
