"""Whole blocks as one: what is not linear is told by both of its inputs.

The change of a residual unit, or of any block with norms and activations in it,
is not that of the input's change alone. Its student gets the pair, the input
now and the input of the key frame, and is the difference of one small network h
on the two:

    z_t = z_key + h(x_t) - h(x_key)

so that a still frame changes nothing whatever h is, and with the block itself
as h the answer is that of the block. h(x_key) is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from ojd.errors import RequestError
from ojd.models.delta import sites as sites_lib
from ojd.models.delta.convert import DELTA, MODEL
from ojd.models.student import Params, Student
from ojd.types import Frame

_KEPT = "kept"
# A frame to look at shapes with; any would do.
_LOOK = jax.ShapeDtypeStruct((64, 64, 3), jnp.uint8)


class Kept(NamedTuple):
  """Of the key frame."""

  z: jax.Array  # the output of the block
  h: jax.Array  # the output of its student


class BlockStudent(NamedTuple):
  """A student of two speeds; params: {"model": its own, "delta": of the h}."""

  init: Callable[[jax.Array, Frame], Params]  # (rng_key, frame) -> params
  # (params, frame) -> (logits [H, W, C], cache).
  apply_key: Callable[[Params, Frame], tuple[jax.Array, Any]]
  # (params, cache, frame) -> logits.
  apply_delta: Callable[[Params, Any, Frame], jax.Array]
  num_classes: int
  paths: tuple[tuple[str, ...], ...]  # of the blocks that are converted


def convert_blocks(
  student: Student,
  kind: type[nn.Module],
  make_h: Callable[[nn.Module], nn.Module],
) -> BlockStudent:
  """Converts every block of a kind.

  Args:
    student: of `from_linen`.
    kind: a module that maps one array to one.
    make_h: of a block the student h, which makes an output of its shape.
  """
  if student.run is None:
    raise RequestError("delta: the student is no Linen module")

  blocks = _blocks(student, kind, _LOOK)
  if not blocks:
    raise RequestError(f"delta: the network has no block {kind.__name__}")
  students = {path: make_h(block) for path, (block, _) in blocks.items()}

  def init(rng_key, frame):
    """The key is consumed."""
    key_model, key_delta = jax.random.split(rng_key)
    delta = {}
    for i, (path, (_, x)) in enumerate(_blocks(student, kind, frame).items()):
      key, zeros = jax.random.fold_in(key_delta, i), jnp.zeros(x.shape, x.dtype)
      delta["/".join(path)] = students[path].init(key, zeros)["params"]
    delta = traverse_util.unflatten_dict(delta, sep="/")
    return {MODEL: student.init(key_model, frame), DELTA: delta}

  def run(params, frame, handle):
    is_inside = []  # of a student h, whose own blocks are no converted ones

    def intercept(next_fun, args, kwargs, context):
      if is_inside or not _is_block(context, kind):
        return next_fun(*args, **kwargs)
      module, (x,) = context.module, args
      weights = sites_lib.at(params[DELTA], module.path)
      is_inside.append(True)
      h = students[module.path].apply({"params": weights}, x)
      is_inside.pop()
      return handle(module, next_fun, x, h)

    with nn.intercept_methods(intercept):
      return student.run({"params": params[MODEL]}, frame, [_KEPT])

  def apply_key(params, frame):
    def leave(module, next_fun, x, h):
      z = next_fun(x)
      module.put_variable(_KEPT, _KEPT, Kept(z, h))
      return z

    logits, told = run(params, frame, leave)
    return logits, told[_KEPT]

  def apply_delta(params, cache, frame):
    def stand_in(module, next_fun, x, h):
      del next_fun, x  # the block itself does not run
      kept = sites_lib.at(cache, module.path)[_KEPT]
      return kept.z + h - kept.h

    return run(params, frame, stand_in)[0]

  return BlockStudent(
    *(init, apply_key, apply_delta, student.num_classes, tuple(blocks))
  )


def _is_block(context, kind):
  is_call = context.method_name == "__call__"
  return is_call and isinstance(context.module, kind)


def _blocks(student, kind, frame):
  """By path the blocks, unbound, and the shape of what they are given."""
  found = {}

  def note(next_fun, args, kwargs, context):
    if _is_block(context, kind):
      module = context.module
      # A dict key is a plain tuple, whatever Linen's is.
      found[tuple(module.path)] = (module.clone(parent=None), args[0])
    return next_fun(*args, **kwargs)

  # A function of its own: what was traced before is not traced again.
  init = lambda rng_key, frame: student.init(rng_key, frame)
  with nn.intercept_methods(note):
    jax.eval_shape(init, jax.random.key(0), frame)
  return found
