"""The convolutions of a student, in the order they run, and what replaces them.

Between key frames a `Rule` replaces a convolution. Delta Distillation's
(`changes.py`) adds to the output of the key frame what a small student makes of
the input's change; Skip-Convolutions' (`skip.py`) go from each frame to the
next and compute only where something changed.

Letters: H, W height and width in, P, Q out, I, O channels in and out.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ojd.errors import UserError
from ojd.models import convolution, layers
from ojd.models.student import Params, Student

# Of a frame whose shapes are traced; any would do.
_SIDE = 64
_CONVOLUTIONS = (layers.Conv, layers.Depthwise)
TEMPERATURE = 2 / 3  # of `gumbel_sample`


class ConvLayer(NamedTuple):
  """Where a convolution is in the network, and its shapes."""

  path: tuple[str, ...]  # of its parameters
  kernel_size: tuple[int, int]
  stride: int
  dilation: int
  has_bias: bool
  shape_in: tuple[int, int, int]  # H, W, I
  shape_out: tuple[int, int, int]  # P, Q, O
  is_depthwise: bool = False

  @property
  def name(self) -> str:
    """As its parameters are called, "layer/.../layer"."""
    return "/".join(self.path)

  @property
  def macs(self) -> int:
    """Multiply-accumulates on the whole frame."""
    per_channel = 1 if self.is_depthwise else self.shape_in[-1]
    taps = self.kernel_size[0] * self.kernel_size[1]
    return taps * per_channel * int(np.prod(self.shape_out))


class Layer(NamedTuple):
  """A convolution with its parameters."""

  conv: ConvLayer
  kernel: jax.Array  # [KH, KW, I, O]
  bias: jax.Array | None  # [O]
  weights: Any  # a dict of arrays, of its rule


Weights = Any  # a dict of arrays
Kept = Any  # a pytree of arrays, a layer's memory of earlier frames


class Changed(NamedTuple):
  """A converted layer on a frame that is no key frame."""

  z: jax.Array  # [B, P, Q, O], the output
  kept: Kept
  gmac: jax.Array | float  # multiply-accumulates / 1e9
  # What a training loss reads, by name.
  aux: dict[str, jax.Array]


class Rule(NamedTuple):
  """What replaces one convolution between key frames, made by a factory."""

  # The first weights: (rng_key, layer without weights) -> weights.
  begin: Callable[[jax.Array, Layer], Weights]
  # The weights after the layer itself was trained: layer -> weights.
  refit: Callable[[Layer], Weights]
  # After a key frame, its input and output (x, z, conv) -> kept.
  keep: Callable[[jax.Array, jax.Array, ConvLayer], Kept]
  # (layer, kept, x, rng_key) -> Changed; a key is given in training only.
  change: Callable[[Layer, Kept, jax.Array, jax.Array | None], Changed]


def is_convolution(context: nn.module.InterceptorContext) -> bool:
  """Whether an intercepted call is that of a convolution."""
  is_call = context.method_name == "__call__"
  return is_call and isinstance(context.module, _CONVOLUTIONS)


def trace(
  student: Student, height: int = _SIDE, width: int = _SIDE
) -> list[ConvLayer]:
  """All convolutions on a frame of a size, one a call; computes nothing.

  Args:
    student: of `from_linen`.
    height: H of the frame.
    width: W of the frame.
  """
  if student.run is None:
    raise UserError("delta: the student is no Linen module")
  found = []

  def note(next_fun, args, kwargs, context):
    if is_convolution(context):
      found.append(of_module(context.module, args[0]))
    return next_fun(*args, **kwargs)

  frame = jax.ShapeDtypeStruct((height, width, 3), np.uint8)
  # A function of its own: what was traced before is not traced again.
  init = lambda rng_key, frame: student.init(rng_key, frame)
  with nn.intercept_methods(note):
    jax.eval_shape(init, jax.random.key(0), frame)
  return found


def of_module(module: nn.Module, x: jax.Array) -> ConvLayer:
  """The record of a convolution that runs on [B, H, W, I]."""
  _, height, width, num_in = x.shape
  rows, columns = (-(-side // module.stride) for side in (height, width))
  is_depthwise = isinstance(module, layers.Depthwise)
  return ConvLayer(
    module.path,
    tuple(module.kernel_size),
    module.stride,
    module.dilation,
    getattr(module, "use_bias", False),
    (height, width, num_in),
    (rows, columns, num_in if is_depthwise else module.features),
    is_depthwise,
  )


def converted(convs: Iterable[ConvLayer]) -> list[ConvLayer]:
  """Those that convert: all but the first, the last and the depthwise.

  A layer that runs more than once on a frame does not: its memory is of one
  input.
  """
  full = [conv for conv in convs if not conv.is_depthwise]
  paths = [conv.path for conv in full]
  inner = [conv for conv in full[1:-1] if paths.count(conv.path) == 1]
  if not inner:
    raise UserError(
      "delta: the network has no convolution between its first and its last"
    )
  return inner


def convolve(x: jax.Array, kernel: jax.Array, conv: ConvLayer) -> jax.Array:
  """The layer without its bias, with any kernel of its size."""
  kernel = kernel.astype(x.dtype)
  if conv.dilation > 1:
    return convolution.dilated_conv2d(x, kernel, conv.dilation)
  return convolution.conv2d(x, kernel, conv.stride)


def row(values: jax.Array, like: jax.Array) -> jax.Array:
  """[O] to be added to [B, P, Q, O]."""
  return jnp.reshape(values, (1,) * (like.ndim - 1) + (-1,)).astype(like.dtype)


def at(tree: Params, path: Iterable[str]) -> Any:
  """The value of a nested dict at a path; {} where there is none."""
  for name in path:
    tree = tree.get(name, {})
  return tree


def nest(
  convs: Iterable[ConvLayer], value: Callable[[int, ConvLayer], dict[str, Any]]
) -> Params:
  """A nested dict of `value(index, conv)` at each path."""
  tree = {}
  for i, conv in enumerate(convs):
    inner = tree
    for name in conv.path[:-1]:
      inner = inner.setdefault(name, {})
    inner.setdefault(conv.path[-1], {}).update(value(i, conv))
  return tree


def gumbel_sample(
  logit: jax.Array, rng_key: jax.Array, *, is_logistic: bool = True
) -> jax.Array:
  """0 or 1, with the gradient of the soft sample.

  Args:
    logit: any shape.
    rng_key: consumed.
    is_logistic: whether the noise is the difference of two Gumbel draws, or
      one of them.
  """
  first, second = jax.random.split(rng_key)
  noise = jax.random.gumbel(first, logit.shape, logit.dtype)
  if is_logistic:
    noise -= jax.random.gumbel(second, logit.shape, logit.dtype)
  soft = jax.nn.sigmoid((logit + noise) / TEMPERATURE)
  hard = (soft >= 0.5).astype(soft.dtype)
  return jax.lax.stop_gradient(hard - soft) + soft
