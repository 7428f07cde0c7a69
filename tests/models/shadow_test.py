"""ShadowTutor's student beside torch's modules and the published counts."""

import jax
import numpy as np
import pytest
import torch
from torch import nn

from ojd.models import parts, shadow
from ojd.models.student import create, from_linen
from ojd.updates import partition

NUM_CLASSES = 9


class _Norm(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(channels))
    self.bias = nn.Parameter(torch.zeros(channels))

  def forward(self, x):
    return nn.functional.batch_norm(
      x, None, None, self.weight, self.bias, training=True, eps=1e-5
    )


class _Block(nn.Module):
  def __init__(self, i, o, stride=1, is_plain=False):
    super().__init__()
    self.stride, self.is_plain = stride, is_plain
    self.preact = _Norm(i)
    if not is_plain:
      self.shortcut = nn.Conv2d(i, o, 1, stride)
    self.conv1 = nn.Conv2d(i, o, 3, stride, 1)
    self.conv2_1x3 = nn.Conv2d(o, o, (1, 3), 1, (0, 1))
    self.conv2_3x1 = nn.Conv2d(o, o, (3, 1), 1, (1, 0))

  def forward(self, x):
    active = self.preact(x).relu()
    short = x[..., :: self.stride, :: self.stride]
    if not self.is_plain:
      short = self.shortcut(active)
    return short + self.conv2_3x1(self.conv2_1x3(self.conv1(active).relu()))


class _Torch(nn.Module):
  """As published: the frame is resized before the last convolution."""

  def __init__(self):
    super().__init__()
    self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
    self.conv2 = nn.Conv2d(8, 8, 3, 2, 1)
    self.enc1 = _Block(8, 64, 2)
    self.enc2 = _Block(64, 64, 2, is_plain=True)
    self.enc3 = _Block(64, 128, 2)
    self.dec1 = _Block(128, 64)
    self.dec2 = _Block(128, 32)
    self.dec3 = _Block(96, 32)
    self.decoder_conv1 = nn.Conv2d(32, 32, 3, 1, 1)
    self.decoder_conv2 = nn.Conv2d(32, 32, 3, 1, 1)
    self.logits = nn.Conv2d(32, NUM_CLASSES, 1)

  def forward(self, frames):
    resize = lambda x, to: nn.functional.interpolate(
      x, to.shape[2:], mode="bilinear", align_corners=False
    )
    mean = torch.tensor([123.675, 116.28, 103.53], dtype=frames.dtype)
    stem = self.conv1(frames - mean[:, None, None])
    first = self.enc1(self.conv2(stem))
    second = self.enc2(first)
    x = self.dec1(self.enc3(second))
    x = self.dec2(torch.cat([resize(x, second), second], 1))
    x = self.dec3(torch.cat([resize(x, first), first], 1))
    x = self.decoder_conv2(self.decoder_conv1(resize(x, stem)))
    return self.logits(resize(x, frames))


def _as_flax(module):
  """Torch's parameters by this project's names and axes."""
  tree = {}
  for name, value in module.named_parameters():
    *path, leaf = name.split(".")
    value = value.detach().numpy()
    if value.ndim == 4:
      leaf, value = "kernel", value.transpose(2, 3, 1, 0)
    elif path[-1] == "preact" and leaf == "weight":
      leaf = "scale"
    place = tree
    for part in path:
      place = place.setdefault(part, {})
    place[leaf] = value
  return tree


@pytest.mark.parametrize("size", [(64, 96), (45, 70)])
def test_logits_and_gradients_equal_torch(size):
  torch.manual_seed(0)
  theirs = _Torch().double()
  with torch.no_grad():
    for value in theirs.parameters():
      value.add_(0.1 * torch.randn_like(value))
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (*size, 3)).astype(np.float64)
  pull = rng.normal(size=(*size, NUM_CLASSES))
  logits = theirs(torch.from_numpy(frame).permute(2, 0, 1)[None])
  logits = logits[0].permute(1, 2, 0)
  (logits * torch.from_numpy(pull)).sum().backward()
  expected = logits.detach().numpy()
  with jax.enable_x64(True):
    student = from_linen(shadow.ShadowStudent(NUM_CLASSES))
    params = _as_flax(theirs)
    ours = jax.jit(student.apply)(params, frame)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
    grads = jax.jit(
      jax.grad(lambda params: (student.apply(params, frame) * pull).sum())
    )(params)
  for value in theirs.parameters():
    value.data = value.grad
  wanted = _as_flax(theirs)
  assert jax.tree.structure(grads) == jax.tree.structure(wanted)
  for ours, theirs in zip(
    jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True
  ):
    ours, scale = np.asarray(ours), np.abs(theirs).max() + 1e-3
    np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-8)


def test_parameters_are_as_many_as_published():
  student = create("shadow", NUM_CLASSES)
  frame = np.zeros((720, 1280, 3), np.uint8)
  params = jax.eval_shape(student.init, jax.random.key(0), frame)
  total = sum(x.size for x in jax.tree.leaves(params))
  assert total == 483_873
  behind = partition.split(
    params, lambda names: parts.of_parts(names, "decoder", "head")
  )[0]
  leaves = jax.tree.leaves(behind)
  assert sum(x.size for x in leaves) == 103_465
  assert len(leaves) == 26 and len(jax.tree.leaves(params)) == 68
