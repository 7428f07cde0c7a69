"""Conversion of any student into one that is cheaper between key frames.

The network's code does not change: the calls of its convolutions are
intercepted. On a key frame the whole network runs, and every converted
convolution keeps what its `Rule` needs; on other frames the rule replaces it.
Everything between the convolutions runs on every frame.

Delta Distillation's rules (`changes.py`) add to the output of the key frame
what a small student makes of the input's change; Skip-Convolutions' (`skip.py`)
go from each frame to the next and compute only where something changed.

Letters: H, W height and width in, P, Q out, I, O channels in and out.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ojd.errors import UserError
from ojd.models import convolution, layers
from ojd.models.student import Params, Student
from ojd.types import Frame

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


Cache = Any  # a pytree of arrays, of all converted layers

MODEL, DELTA = "model", "delta"  # of the parameters
_KEPT, _AUX = "kept", "aux"  # collections


class Between(NamedTuple):
  """A frame between key frames."""

  logits: jax.Array  # [H, W, C] float32
  cache: Cache
  gmac: jax.Array  # float32, multiply-accumulates of all convolutions / 1e9
  # By layer the `Changed.aux` of its rule, nested as the parameters are.
  aux: Any


class DeltaStudent(NamedTuple):
  """A converted student; params: {"model": its own, "delta": the rules'}."""

  init: Callable[[jax.Array, Frame], Params]  # (rng_key, frame) -> params
  # The rules' parameters for a model: (rng_key, model) -> delta.
  begin: Callable[[jax.Array, Params], Params]
  # The rules' parameters after the model was trained: (params) -> delta.
  refit: Callable[[Params], Params]
  # The whole network: (params, frame) -> (logits [H, W, C], cache).
  apply_key: Callable[[Params, Frame], tuple[jax.Array, Cache]]
  # (params, cache, frame, rng_key=None) -> Between; a key is for training.
  apply_delta: Callable[..., Between]
  gmac: Callable[[Frame], float]  # of a key frame, by its size
  num_classes: int
  converted: Sequence[ConvLayer]  # on a frame of any size


def convert(
  student: Student, rule: Rule | Callable[[ConvLayer], Rule | None]
) -> DeltaStudent:
  """Converts all convolutions but the first and the last.

  With a rule that is exact the logits are those of the student.

  Args:
    student: of `from_linen`; any network of `layers.Conv`. Depthwise
      convolutions run whole on every frame.
    rule: of all of them, or of each; None where one runs whole.
  """
  rule_of = rule if callable(rule) else lambda conv: rule
  inner = converted(trace(student))
  chosen = [(conv, rule_of(conv)) for conv in inner]
  chosen = [(conv, rule) for conv, rule in chosen if rule is not None]
  if not chosen:
    raise UserError("delta: not one convolution converts")
  found, rules = zip(*chosen, strict=True)
  numbers = {conv.path: i for i, conv in enumerate(found)}

  def layer_of(params, conv):
    own = at(params[MODEL], conv.path)
    weights = at(params.get(DELTA, {}), conv.path)
    return Layer(conv, own["kernel"], own.get("bias"), weights)

  def begin(rng_key, model):
    keys = jax.random.split(rng_key, len(found))
    layer = lambda conv: layer_of({MODEL: model}, conv)
    return nest(found, lambda i, conv: rules[i].begin(keys[i], layer(conv)))

  def init(rng_key, frame):
    """The key is consumed."""
    key_model, key_delta = jax.random.split(rng_key)
    model = student.init(key_model, frame)
    return {MODEL: model, DELTA: begin(key_delta, model)}

  def refit(params):
    weights = lambda i, conv: rules[i].refit(layer_of(params, conv))
    return nest(found, weights)

  def apply_key(params, frame):
    def leave(conv, module, next_fun, x):
      z = next_fun(x)
      if conv.path in numbers:
        kept = rules[numbers[conv.path]].keep(x, z, conv)
        module.put_variable(_KEPT, _KEPT, kept)
      return z

    with _each_convolution(leave):
      logits, found_by = student.run({"params": params[MODEL]}, frame, [_KEPT])
    return logits, found_by[_KEPT]

  def apply_delta(params, cache, frame, rng_key=None):
    work = []

    def stand_in(conv, module, next_fun, x):
      if conv.path not in numbers:
        work.append(jnp.float32(conv.macs / 1e9))
        return next_fun(x)
      number = numbers[conv.path]
      key = None if rng_key is None else jax.random.fold_in(rng_key, number)
      kept = _kept(cache, conv)
      layer = layer_of(params, conv)
      changed = rules[number].change(layer, kept, x, key)
      module.put_variable(_KEPT, _KEPT, changed.kept)
      for name, value in changed.aux.items():
        module.put_variable(_AUX, name, value)
      work.append(changed.gmac)
      return changed.z

    with _each_convolution(stand_in):
      logits, by = student.run({"params": params[MODEL]}, frame, [_KEPT, _AUX])
    return Between(logits, by[_KEPT], sum(work), by[_AUX])

  @functools.cache  # asked for whenever a step is traced, which traces all
  def gmac_at(height, width):
    convs = trace(student, height, width)
    return sum(conv.macs for conv in convs) / 1e9

  gmac = lambda frame: gmac_at(*frame.shape[:2])
  return DeltaStudent(
    *(init, begin, refit, apply_key, apply_delta, gmac),
    *(student.num_classes, found),
  )


def _kept(cache, conv):
  """The memory of a layer; a UserError where it is of another layer."""
  kept = at(cache, conv.path).get(_KEPT)
  if kept is None:
    raise UserError(
      f"delta: the state is of another network, without {conv.name}"
    )
  if kept.z.shape[1:] != conv.shape_out or kept.x.shape[1:] != conv.shape_in:
    raise UserError(
      f"delta: the state is of another network or size of frames: {conv.name} "
      f"makes {conv.shape_out}, not {kept.z.shape[1:]}"
    )
  return kept


def _each_convolution(handle):
  """Calls of convolutions become `handle(conv, module, next_fun, x)`."""

  def intercept(next_fun, args, kwargs, context):
    if not is_convolution(context):
      return next_fun(*args, **kwargs)
    (x,) = args
    conv = of_module(context.module, x)
    return handle(conv, context.module, next_fun, x)

  return nn.intercept_methods(intercept)
