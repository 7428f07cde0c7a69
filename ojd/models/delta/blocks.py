"""Delta distillation of whole blocks, which are not linear.

The change of a residual unit, or of any block with norms and activations in it,
depends on both inputs, not on their difference alone. Its student is the
difference of one small network h on the two:

    z_t = z_key + h(x_t) - h(x_key)

A still frame changes nothing whatever h is, and with the block itself as h the
result is the block's. h(x_key) is kept.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd.errors import UserError
from ojd.models import jitnet, layers, mobilenet_seg, shadow
from ojd.models.delta import conversion
from ojd.models.delta.conversion import DELTA, MODEL, Between, DeltaStudent
from ojd.models.student import Student

# The blocks of this package's networks; each maps one array to one.
KINDS = (
  *(jitnet.Unit, shadow.Block, mobilenet_seg.InvertedResidual),
  *(layers.BasicBlock, layers.Bottleneck),
)
_KEPT, _AUX = "kept", "aux"  # collections
# A frame to trace shapes with; any would do.
_EXAMPLE = jax.ShapeDtypeStruct((64, 64, 3), jnp.uint8)


class Kept(NamedTuple):
  """Of the key frame."""

  z: jax.Array  # the output of the block
  h: jax.Array  # the output of its student


class BlockLayer(NamedTuple):
  """Where a block is in the network, and its shapes."""

  path: tuple[str, ...]  # of its parameters
  block: nn.Module  # unbound
  shape_in: tuple[int, int, int]  # H, W, I
  shape_out: tuple[int, int, int]  # P, Q, O

  @property
  def name(self) -> str:
    """As its parameters are called, "layer/.../layer"."""
    return "/".join(self.path)


class Thin(nn.Module):
  """h: two 3x3 convolutions with few channels between; 0 at first."""

  features: int
  between: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = layers.Conv(self.between, (3, 3), self.stride, name="narrow")(x)
    x = jax.nn.relu(x)
    zeros = nn.initializers.zeros_init()
    wide = layers.Conv(self.features, (3, 3), kernel_init=zeros, name="wide")
    return wide(x)


def thin(layer: BlockLayer, between: int) -> Thin:
  """The `Thin` that replaces a block, with `between` channels inside."""
  stride = -(-layer.shape_in[0] // layer.shape_out[0])
  return Thin(layer.shape_out[-1], between, stride)


def thinner(gamma: int) -> Callable[[BlockLayer], Thin]:
  """`thin` with gamma times fewer channels than the block."""
  if gamma < 1:
    raise UserError(f"gamma={gamma}: at least 1")
  return lambda layer: thin(layer, max(layer.shape_out[-1] // gamma, 1))


def convert_blocks(
  student: Student,
  make_h: Callable[[BlockLayer], nn.Module],
  kinds: tuple[type[nn.Module], ...] = KINDS,
) -> DeltaStudent:
  """Converts every block of some kinds.

  Args:
    student: of `from_linen`.
    make_h: the student h of a block, with an output of the same shape, made of
      `layers.Conv`.
    kinds: modules that map one array to one. A block inside another is part of
      it.
  """
  if student.run is None:
    raise UserError("delta: the student is no Linen module")
  found = _trace(student, kinds)
  if not found:
    raise UserError("delta: the network has no residual block")
  students = {layer.path: make_h(layer) for layer in found}

  def begin(rng_key, model):
    del model  # h is nothing like its block

    def weights(i, layer):
      key = jax.random.fold_in(rng_key, i)
      zeros = jnp.zeros((1, *layer.shape_in), jnp.float32)
      return students[layer.path].init(key, zeros)["params"]

    return conversion.nest(found, weights)

  def init(rng_key, frame):
    """The key is consumed."""
    key_model, key_delta = jax.random.split(rng_key)
    model = student.init(key_model, frame)
    return {MODEL: model, DELTA: begin(key_delta, model)}

  def run(params, frame, handle):
    """-> (logits, collections, GMAC, those of every h with the rest)."""
    work, inside = [], []

    def intercept(next_fun, args, kwargs, context):
      if conversion.is_convolution(context):
        work.append(conversion.of_module(context.module, args[0]).macs)
      path = tuple(context.module.path)
      # The blocks that an h may have are no converted ones.
      if inside or path not in students or not _is_block(context, kinds):
        return next_fun(*args, **kwargs)
      (x,) = args
      inside.append(path)
      weights = conversion.at(params[DELTA], path)
      h = students[path].apply({"params": weights}, x)
      inside.pop()
      return handle(context.module, next_fun, x, h)

    with nn.intercept_methods(intercept):
      variables = {"params": params[MODEL]}
      logits, by = student.run(variables, frame, [_KEPT, _AUX])
    return logits, by, sum(work) / 1e9

  def run_key(params, frame):
    def leave(module, next_fun, x, h):
      z = next_fun(x)
      module.put_variable(_KEPT, _KEPT, Kept(z, h))
      return z

    return run(params, frame, leave)

  def apply_key(params, frame):
    logits, by, _ = run_key(params, frame)
    return logits, by[_KEPT]

  def apply_delta(params, cache, frame, rng_key=None):
    del rng_key  # nothing is drawn

    def stand_in(module, next_fun, x, h):
      del next_fun, x  # the block itself does not run
      change = h - _kept(cache, module.path, h).h
      module.put_variable(_AUX, "change", change)
      return _kept(cache, module.path, h).z + change

    logits, by, work = run(params, frame, stand_in)
    return Between(logits, cache, jnp.float32(work), by[_AUX])

  @functools.cache  # asked for whenever a step is traced, which traces all
  def gmac_of(shape):
    work = []

    def count(frame):
      params = init(jax.random.key(0), frame)
      work.append(run_key(params, frame)[2])

    jax.eval_shape(count, jax.ShapeDtypeStruct(shape, jnp.uint8))
    return work[0]

  gmac = lambda frame: gmac_of(frame.shape)
  return DeltaStudent(
    *(init, begin, lambda params: params[DELTA], apply_key, apply_delta, gmac),
    *(student.num_classes, found),
  )


def _kept(cache, path, h):
  """The memory of a block; a UserError where it is of another block."""
  kept = conversion.at(cache, path).get(_KEPT)
  if kept is None or kept.h.shape != h.shape:
    raise UserError(
      f"delta: the state is of another network or size of frames: {path[-1]}"
    )
  return kept


def _is_block(context, kinds):
  is_call = context.method_name == "__call__"
  return is_call and isinstance(context.module, kinds)


def _trace(student, kinds):
  """The outermost blocks, in the order they run."""
  found, inside = [], []

  def note(next_fun, args, kwargs, context):
    if inside or not _is_block(context, kinds):
      return next_fun(*args, **kwargs)
    inside.append(context.module)
    z = next_fun(*args, **kwargs)
    inside.pop()
    path = tuple(context.module.path)  # Linen's own is no plain tuple
    block = context.module.clone(parent=None)
    found.append(BlockLayer(path, block, args[0].shape[1:], z.shape[1:]))
    return z

  # A function of its own: what was traced before is not traced again.
  init = lambda rng_key, frame: student.init(rng_key, frame)
  with nn.intercept_methods(note):
    jax.eval_shape(init, jax.random.key(0), _EXAMPLE)
  return found
