"""Whole blocks as one: what is not linear is told by both of its inputs.

The change of a residual unit, or of any block with norms and activations in it,
is not that of the input's change alone. Its student gets the pair, the input
now and the input of the key frame, and is the difference of one small network h
on the two:

    z_t = z_key + h(x_t) - h(x_key)

so that a still frame changes nothing whatever h is, and with the block itself
as h the answer is that of the block. h(x_key) is kept.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd.errors import UserError
from ojd.models import blocks, jitnet, layers, mobilenet_seg, shadow
from ojd.models.delta import sites as sites_lib
from ojd.models.delta.convert import DELTA, MODEL, Between, DeltaStudent
from ojd.models.student import Student

# What a network of this package is built of, each from one array to one.
KINDS = (
  *(jitnet.Unit, shadow.Block, mobilenet_seg.InvertedResidual),
  *(blocks.BasicBlock, blocks.Bottleneck),
)
_KEPT, _TOLD = "kept", "told"  # collections
# A frame to look at shapes with; any would do.
_LOOK = jax.ShapeDtypeStruct((64, 64, 3), jnp.uint8)


class Kept(NamedTuple):
  """Of the key frame."""

  z: jax.Array  # the output of the block
  h: jax.Array  # the output of its student


class BlockSite(NamedTuple):
  """A block, where it stands and on what."""

  path: tuple[str, ...]  # of its parameters
  block: nn.Module  # unbound
  shape_in: tuple[int, int, int]  # H, W, I
  shape_out: tuple[int, int, int]  # P, Q, O

  @property
  def name(self) -> str:
    """As its parameters are called, "layer/.../layer"."""
    return "/".join(self.path)


class Thin(nn.Module):
  """h: two 3x3 convolutions and few channels between; silent at first."""

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


def thin(site: BlockSite, between: int) -> Thin:
  """The `Thin` in the place of a block, of so many channels between."""
  stride = -(-site.shape_in[0] // site.shape_out[0])
  return Thin(site.shape_out[-1], between, stride)


def thinner(gamma: int) -> Callable[[BlockSite], Thin]:
  """`thin` with gamma times fewer channels than the block."""
  if gamma < 1:
    raise UserError(f"--gamma={gamma}: at least 1")
  return lambda site: thin(site, max(site.shape_out[-1] // gamma, 1))


def convert_blocks(
  student: Student,
  make_h: Callable[[BlockSite], nn.Module],
  kinds: tuple[type[nn.Module], ...] = KINDS,
) -> DeltaStudent:
  """Converts every block of some kinds.

  Args:
    student: of `from_linen`.
    make_h: of a block the student h, which makes an output of its shape of
      `layers.Conv`.
    kinds: modules that map one array to one. A block inside another is part of
      it.
  """
  if student.run is None:
    raise UserError("delta: the student is no Linen module")
  found = _trace(student, kinds)
  if not found:
    raise UserError("delta: the network has no residual block")
  students = {site.path: make_h(site) for site in found}

  def begin(rng_key, model):
    del model  # h is nothing like its block

    def weights(i, site):
      key = jax.random.fold_in(rng_key, i)
      zeros = jnp.zeros((1, *site.shape_in), jnp.float32)
      return students[site.path].init(key, zeros)["params"]

    return sites_lib.nest(found, weights)

  def init(rng_key, frame):
    """The key is consumed."""
    key_model, key_delta = jax.random.split(rng_key)
    model = student.init(key_model, frame)
    return {MODEL: model, DELTA: begin(key_delta, model)}

  def run(params, frame, handle):
    """-> (logits, collections, GMAC, those of every h with the rest)."""
    work, inside = [], []

    def intercept(next_fun, args, kwargs, context):
      if sites_lib.is_convolution(context):
        work.append(sites_lib.site_of(context.module, args[0]).macs)
      path = tuple(context.module.path)
      # The blocks that an h may have are no converted ones.
      if inside or path not in students or not _is_block(context, kinds):
        return next_fun(*args, **kwargs)
      (x,) = args
      inside.append(path)
      weights = sites_lib.at(params[DELTA], path)
      h = students[path].apply({"params": weights}, x)
      inside.pop()
      return handle(context.module, next_fun, x, h)

    with nn.intercept_methods(intercept):
      variables = {"params": params[MODEL]}
      logits, by = student.run(variables, frame, [_KEPT, _TOLD])
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
      module.put_variable(_TOLD, "change", change)
      return _kept(cache, module.path, h).z + change

    logits, by, work = run(params, frame, stand_in)
    return Between(logits, cache, jnp.float32(work), by[_TOLD])

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
  """What a block remembers; a UserError where that is of another one."""
  kept = sites_lib.at(cache, path).get(_KEPT)
  if kept is None or kept.h.shape != h.shape:
    raise UserError(
      f"delta: the state is of another network or size of frames: {path[-1]}"
    )
  return kept


def _is_block(context, kinds):
  is_call = context.method_name == "__call__"
  return is_call and isinstance(context.module, kinds)


def _trace(student, kinds):
  """The outermost blocks of a frame of no account, in their order."""
  found, inside = [], []

  def note(next_fun, args, kwargs, context):
    if inside or not _is_block(context, kinds):
      return next_fun(*args, **kwargs)
    inside.append(context.module)
    z = next_fun(*args, **kwargs)
    inside.pop()
    path = tuple(context.module.path)  # Linen's own is no plain tuple
    block = context.module.clone(parent=None)
    found.append(BlockSite(path, block, args[0].shape[1:], z.shape[1:]))
    return z

  # A function of its own: what was traced before is not traced again.
  init = lambda rng_key, frame: student.init(rng_key, frame)
  with nn.intercept_methods(note):
    jax.eval_shape(init, jax.random.key(0), _LOOK)
  return found
