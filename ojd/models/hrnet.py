"""HRNet: up to four branches of different sizes that exchange features.

High-resolution networks (Wang et al., 2019), in the width and depth on which
delta distillation was published: with one, three and two modules in stages 2, 3
and 4 it is W18-Small-v2 of HRNet's own authors. A module is two basic blocks in
every branch and an exchange, in which each branch gets the sum of all, resized.
Norms use the statistics of the frame, as in every student here.

At 1024x2048 with 19 classes the convolutions take 76.86 GMAC. Tables of later
papers say 77.9, with norms, ReLUs and biases as in those of DDRNet.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd.models import layers, norm, resize
from ojd.models.layers import BasicBlock, Bottleneck, ConvNorm

STEM = 64
BRANCHES = (18, 36, 72, 144)
NUM_MODULES = (1, 3, 2)  # of stages 2, 3 and 4, which have as many branches
_NUM_BLOCKS = 2


class Module(nn.Module):
  """Basic blocks in each branch, then the exchange of all with all.

  Branch i of the list is at 1 / 2^i of the size of the first.
  """

  @nn.compact
  def __call__(self, branches: list[jax.Array]) -> list[jax.Array]:
    found = []
    for i, x in enumerate(branches):
      for j in range(1, _NUM_BLOCKS + 1):
        x = BasicBlock(x.shape[-1], name=f"branch{i}_block{j}")(x)
      found.append(x)
    return [jax.nn.relu(self._sum(found, i)) for i in range(len(found))]

  def _sum(self, found, i):
    """All branches, resized to branch `i` and summed."""
    own = found[i]
    total = None
    for j, x in enumerate(found):
      if j > i:
        up = ConvNorm(own.shape[-1], has_relu=False, name=f"from{j}_to{i}")
        x = resize.resize(up(x), own.shape[1:3], by_edges=True)
      elif j < i:
        x = self._down(x, j, i, own.shape[-1])
      total = x if total is None else total + x
    return total

  def _down(self, x, j, i, features):
    """Strided once for every branch between; only the last widens."""
    for k in range(j + 1, i + 1):
      is_last = k == i
      x = ConvNorm(
        *(features if is_last else x.shape[-1], 3, 2),
        has_relu=not is_last,
        name=f"from{j}_to{i}" + ("" if is_last else f"_by{k}"),
      )(x)
    return x


class Stage(nn.Module):
  """A further branch, and then modules of them all."""

  features: int  # of the new branch
  num_modules: int

  @nn.compact
  def __call__(self, branches: list[jax.Array]) -> list[jax.Array]:
    new = ConvNorm(self.features, 3, 2, name="new")(branches[-1])
    branches = [*branches, new]
    for i in range(1, self.num_modules + 1):
      branches = Module(name=f"module{i}")(branches)
    return branches


class Backbone(nn.Module):
  """Frames to three branches, the first at a quarter of the size.

  Attributes:
    widths: of the first three branches.
    stem: channels before them; their bottlenecks end in four times as many.
  """

  widths: tuple[int, int, int]
  stem: int

  @nn.compact
  def __call__(self, frames: jax.Array) -> list[jax.Array]:
    x = layers.imagenet_input(frames)
    for i in (1, 2):
      x = ConvNorm(self.stem, 3, 2, name=f"stem{i}")(x)
    for i in (1, 2):
      x = Bottleneck(self.stem, 4, name=f"bottleneck{i}")(x)
    first, second, third = self.widths
    branches = [
      ConvNorm(first, 3, name="branch0")(x),
      ConvNorm(second, 3, 2, name="branch1")(x),
    ]
    for i in range(1, NUM_MODULES[0] + 1):
      branches = Module(name=f"stage2_module{i}")(branches)
    return Stage(third, NUM_MODULES[1], name="stage3")(branches)


class HRNetW18Small(nn.Module):
  """Frames in, logits out: 3,939,579 parameters with 19 classes.

  Attributes:
    num_classes: C, background included.
    width: multiplies all widths.
  """

  num_classes: int
  width: float = 1.0

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """Maps [B, H, W, 3], raw values 0..255, to logits [B, H, W, C] float32."""
    scaled = lambda features: max(1, round(self.width * features))
    *widths, last = map(scaled, BRANCHES)
    branches = Backbone(tuple(widths), scaled(STEM), name="backbone")(frames)
    branches = Stage(last, NUM_MODULES[2], name="stage4")(branches)
    size = branches[0].shape[1:3]
    branches = [resize.resize(x, size, by_edges=True) for x in branches]
    x = jnp.concatenate(branches, axis=-1)
    x = ConvNorm(x.shape[-1], use_bias=True, name="head")(x)
    logits = layers.Conv(self.num_classes, (1, 1), use_bias=True, name="logits")
    return resize.resize_few(
      norm.wide(logits(x)), frames.shape[1:3], by_edges=True
    )


def hrnet_w18_small(
  num_classes: int, *, width: layers.Width = HRNetW18Small.width
) -> HRNetW18Small:
  """HRNet-W18-Small-v2: branches of four sizes.

  Args:
    width: multiplies all widths.
  """
  return HRNetW18Small(num_classes, width)
