"""A student as pure functions of one frame, and the table of networks."""

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
Norms = Any  # a pytree of `norm.Held`, of all norms of a network


class Student(NamedTuple):
  """A network as systems see it; for batches, use `vmap`."""

  init: Callable[[jax.Array, Frame], Params]  # (rng_key, frame) -> params
  apply: Callable[[Params, Frame], jax.Array]  # -> logits [H, W, C] float32
  num_classes: int
  # `apply` that also returns its norms: -> (logits, norms).
  observe: Callable[[Params, Frame], tuple[jax.Array, Norms]] | None = None
  # With the norms of an earlier frame: (params, norms, frame) -> logits.
  apply_held: Callable[[Params, Norms, Frame], jax.Array] | None = None
  # The general form, with Linen collections: (variables, frame, mutable) ->
  # (logits, the mutable collections).
  run: Callable[..., tuple[jax.Array, Any]] | None = None


def blank_norms(student: Student, params: Params, frame: Frame) -> Norms:
  """Zeros in the shape of the norms that `observe` returns."""
  _, shapes = jax.eval_shape(student.observe, params, frame)
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


# By --precision: the dtype of a frame that enters the network.
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def from_linen(model: nn.Module, precision: str = "float32") -> Student:
  """Wraps a Linen module that maps [B, H, W, 3] to [B, H, W, C].

  Args:
    model: computes in the dtype of its frames; its parameters are float32.
    precision: one of `PRECISIONS`. Parameters, statistics, logits, loss and
      steps stay float32; bfloat16 is for devices with units for it. The values
      of bytes are exact in both.
  """

  def enter(frame):
    # A frame of a wider dtype keeps it.
    dtype = jnp.promote_types(frame.dtype, PRECISIONS[precision])
    return jnp.asarray(frame, dtype)[None]

  def init(rng_key, frame):
    return model.init(rng_key, enter(frame))["params"]

  def unbatch(logits):
    # Some networks make logits as [H, C, W], and losses read them so: the
    # transposes cancel.
    return jnp.swapaxes(jnp.swapaxes(logits, -1, -2)[0], -1, -2)

  def apply(params, frame):
    return unbatch(model.apply({"params": params}, enter(frame)))

  def run(variables, frame, mutable=()):
    logits, found = model.apply(variables, enter(frame), mutable=list(mutable))
    return unbatch(logits), {name: found.get(name, {}) for name in mutable}

  def observe(params, frame):
    logits, found = run({"params": params}, frame, [layers.NORMS])
    return logits, found[layers.NORMS]

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
