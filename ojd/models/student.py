"""The student as two pure functions of one frame, whatever its network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd.models import jitnet
from ojd.types import Frame

Params = Any  # a pytree of arrays


class Student(NamedTuple):
  """What systems know of a network; batches are the caller's `vmap`."""

  init: Callable[[jax.Array, Frame], Params]  # (rng_key, frame) -> params
  apply: Callable[[Params, Frame], jax.Array]  # -> logits [H, W, C] float32
  num_classes: int


def from_linen(model: nn.Module) -> Student:
  """Wraps a Linen module that maps [B, H, W, 3] to [B, H, W, C]."""

  def init(rng_key, frame):
    return model.init(rng_key, frame[None])["params"]

  def apply(params, frame):
    logits = model.apply({"params": params}, frame[None])
    # Out of the batch with [H, C, W] in mind, the order in which some networks
    # make logits and losses read them: pairs of transposes cancel.
    return jnp.swapaxes(jnp.swapaxes(logits, -1, -2)[0], -1, -2)

  return Student(init, apply, model.num_classes)


# --model names; each a Linen module class with `num_classes`.
MODELS = {"jitnet": jitnet.JITNet}
