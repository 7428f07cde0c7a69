"""The student as two pure functions of one frame, whatever its network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd.errors import UserError
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


# --model names; each a Linen module class with `num_classes` and `width`.
MODELS = {
  "ddrnet23": ddrnet.DDRNet23,
  "ddrnet23_slim": ddrnet.DDRNet23Slim,
  "hrnet_w18_small": hrnet.HRNetW18Small,
  "jitnet": jitnet.JITNet,
  "mobilenet_v2": mobilenet_seg.MobileNetSeg,
  "shadow": shadow.ShadowStudent,
}
_LEAST_WIDTH, _GREATEST_WIDTH = 0.01, 8.0


def make_model(
  name: str, num_classes: int, width: float | None = None
) -> nn.Module:
  """A network of the table; the width is its own where none is asked for."""
  widths = {} if width is None else {"width": width}
  return MODELS[name](num_classes=num_classes, **widths)


def check_model(name: str, width: float | None) -> None:
  """Raises a UserError unless `make_model` knows such a network."""
  if name not in MODELS:
    known = ", ".join(MODELS)
    raise UserError(f"--model={name}: unknown; known are {known}")
  if width is not None and not _LEAST_WIDTH <= width <= _GREATEST_WIDTH:
    raise UserError(
      f"--width_multiplier={width}: from {_LEAST_WIDTH} to {_GREATEST_WIDTH}"
    )
