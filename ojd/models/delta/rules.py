"""What stands in for a convolution between key frames: the interface.

A rule is how a converted convolution goes from frame to frame. Delta
Distillation's (`changes.py`) adds to the output of the key frame what a student
makes of the input's change; Skip-Convolutions' (`skip.py`) go from each frame
to the next and compute only where something changed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ojd.models.delta.sites import Layer, Site

Weights = Any  # a dict of arrays
Kept = Any  # a pytree of arrays: what a layer remembers of frames before


class Changed(NamedTuple):
  """A converted layer on a frame that is no key frame."""

  z: jax.Array  # [B, P, Q, O], the output
  kept: Kept
  gmac: jax.Array | float  # multiply-accumulates / 1e9
  # What training looks at, [..] by name; {} where there is nothing.
  told: dict[str, jax.Array]


class Rule(NamedTuple):
  """How one convolution is stood in for, made by a factory."""

  # (rng_key, layer without weights) -> weights, first
  begin: Callable[[jax.Array, Layer], Weights]
  # The weights once the layer itself has learnt: layer -> weights.
  follow: Callable[[Layer], Weights]
  # After a key frame, its input and output (x, z, site) -> kept.
  keep: Callable[[jax.Array, jax.Array, Site], Kept]
  # (layer, kept, x, rng_key or None) -> Changed; the key is of what is drawn
  # in training alone.
  change: Callable[[Layer, Kept, jax.Array, jax.Array | None], Changed]
