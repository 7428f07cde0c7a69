"""The convolutions of a student, in the order they run, and which convert.

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

# A frame to look at shapes with; any would do.
_SIDE = 64
_CONVOLUTIONS = (layers.Conv, layers.Depthwise)


class Site(NamedTuple):
  """A convolution, where it stands and on what."""

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
  """A convolution with what it is given."""

  site: Site
  kernel: jax.Array  # [KH, KW, I, O]
  bias: jax.Array | None  # [O]
  weights: Any  # a dict of arrays, of what stands in for it between key frames


def is_convolution(context: nn.module.InterceptorContext) -> bool:
  """Whether an intercepted call is that of a convolution."""
  is_call = context.method_name == "__call__"
  return is_call and isinstance(context.module, _CONVOLUTIONS)


def trace(
  student: Student, height: int = _SIDE, width: int = _SIDE
) -> list[Site]:
  """All convolutions on a frame of a size, a `Site` a call; computes nothing.

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
      found.append(site_of(context.module, args[0]))
    return next_fun(*args, **kwargs)

  frame = jax.ShapeDtypeStruct((height, width, 3), np.uint8)
  # A function of its own: what was traced before is not traced again.
  init = lambda rng_key, frame: student.init(rng_key, frame)
  with nn.intercept_methods(note):
    jax.eval_shape(init, jax.random.key(0), frame)
  return found


def site_of(module: nn.Module, x: jax.Array) -> Site:
  """A convolution that runs on [B, H, W, I]."""
  _, height, width, num_in = x.shape
  rows, columns = (-(-side // module.stride) for side in (height, width))
  is_depthwise = isinstance(module, layers.Depthwise)
  return Site(
    module.path,
    tuple(module.kernel_size),
    module.stride,
    module.dilation,
    getattr(module, "use_bias", False),
    (height, width, num_in),
    (rows, columns, num_in if is_depthwise else module.features),
    is_depthwise,
  )


def converted(sites: Iterable[Site]) -> list[Site]:
  """Those that convert: all but the first, the last and the depthwise.

  A layer that runs more than once on a frame stays as it is: one state cannot
  be that of two inputs.
  """
  full = [site for site in sites if not site.is_depthwise]
  paths = [site.path for site in full]
  inner = [site for site in full[1:-1] if paths.count(site.path) == 1]
  if not inner:
    raise UserError(
      "delta: the network has no convolution between its first and its last"
    )
  return inner


def convolve(x: jax.Array, kernel: jax.Array, site: Site) -> jax.Array:
  """What the layer does but for its bias, with any kernel of its size."""
  kernel = kernel.astype(x.dtype)
  if site.dilation > 1:
    return convolution.dilated_conv2d(x, kernel, site.dilation)
  return convolution.conv2d(x, kernel, site.stride)


def row(values: jax.Array, like: jax.Array) -> jax.Array:
  """[O] to be added to [B, P, Q, O]."""
  return jnp.reshape(values, (1,) * (like.ndim - 1) + (-1,)).astype(like.dtype)


def at(tree: Params, path: Iterable[str]) -> Any:
  """What a nested dict holds at a path; {} where there is nothing."""
  for name in path:
    tree = tree.get(name, {})
  return tree


def nest(
  sites: Iterable[Site], value: Callable[[int, Site], dict[str, Any]]
) -> Params:
  """A nested dict of what each of the sites has, by its index."""
  tree = {}
  for i, site in enumerate(sites):
    inner = tree
    for name in site.path[:-1]:
      inner = inner.setdefault(name, {})
    inner.setdefault(site.path[-1], {}).update(value(i, site))
  return tree
