"""The student as two pure functions of one frame, whatever its network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd import specs
from ojd.models import (
  ddrnet,
  hrnet,
  jitnet,
  layers,
  mobilenet_seg,
  shadow,
)
from ojd.types import Frame

Params = Any  # a pytree of arrays
Norms = Any  # a pytree of arrays, what the norms of a network do to a frame


class Student(NamedTuple):
  """What systems know of a network; batches are the caller's `vmap`."""

  init: Callable[[jax.Array, Frame], Params]  # (rng_key, frame) -> params
  apply: Callable[[Params, Frame], jax.Array]  # -> logits [H, W, C] float32
  num_classes: int
  # `apply` that tells its norms: -> (logits, norms).
  observe: Callable[[Params, Frame], tuple[jax.Array, Norms]] | None = None
  # By the norms of an earlier frame: (params, norms, frame) -> logits.
  apply_held: Callable[[Params, Norms, Frame], jax.Array] | None = None
  # The same for any of a Linen module's collections: (variables, frame, told)
  # -> (logits, the collections `told`).
  run: Callable[..., tuple[jax.Array, Any]] | None = None


def blank_norms(student: Student, params: Params, frame: Frame) -> Norms:
  """Zeros in the place of what `observe` would tell."""
  _, shapes = jax.eval_shape(student.observe, params, frame)
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


# --precision names: what a frame is when it enters the network.
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def from_linen(model: nn.Module, precision: str = "float32") -> Student:
  """Wraps a Linen module that maps [B, H, W, 3] to [B, H, W, C].

  Args:
    model: computes in the precision of its frames, of float32 parameters.
    precision: one of `PRECISIONS`. Parameters, statistics, logits, loss and
      steps stay float32; bfloat16 is for devices with units for it. Bytes are
      whole in either.
  """

  def enter(frame):
    # Bytes take it on; a frame that is given in more keeps what it has.
    dtype = jnp.promote_types(frame.dtype, PRECISIONS[precision])
    return jnp.asarray(frame, dtype)[None]

  def init(rng_key, frame):
    return model.init(rng_key, enter(frame))["params"]

  def unbatch(logits):
    # With [H, C, W] in mind, the order in which some networks make logits and
    # losses read them: pairs of transposes cancel.
    return jnp.swapaxes(jnp.swapaxes(logits, -1, -2)[0], -1, -2)

  def apply(params, frame):
    return unbatch(model.apply({"params": params}, enter(frame)))

  def run(variables, frame, told=()):
    logits, found = model.apply(variables, enter(frame), mutable=list(told))
    return unbatch(logits), {name: found.get(name, {}) for name in told}

  def observe(params, frame):
    logits, told = run({"params": params}, frame, [layers.NORMS])
    return logits, told[layers.NORMS]

  def apply_held(params, norms, frame):
    variables = {"params": params, layers.NORMS: norms}
    return unbatch(model.apply(variables, enter(frame)))

  return Student(init, apply, model.num_classes, observe, apply_held, run)


# By --model names; each makes a network of (num_classes, *, options).
MODELS: dict[str, specs.Entry] = {
  factory.__name__: specs.Entry(factory)
  for factory in (
    *(ddrnet.ddrnet23, ddrnet.ddrnet23_slim, hrnet.hrnet_w18_small),
    *(jitnet.jitnet, mobilenet_seg.mobilenet_v2, shadow.shadow),
  )
}


def bind(text: str) -> specs.Bound:
  """A network's name and options, as `jitnet:width=0.25`, checked."""
  return specs.bind(text, MODELS, "model")


def network(text: str, num_classes: int) -> nn.Module:
  """The Linen module of a text, as `jitnet` or `jitnet:width=0.25`."""
  return bind(text).make(num_classes)


def create(
  text: str, num_classes: int, *, precision: str = "float32"
) -> Student:
  """The student of a text, with random parameters.

  Args:
    text: of `MODELS`, by the grammar of `ojd.specs`: `jitnet:width=0.25`.
    num_classes: C, background included.
    precision: one of `PRECISIONS`, of what it computes in.
  """
  return from_linen(network(text, num_classes), precision)
