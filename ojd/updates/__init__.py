"""Gradient-step variants: factories over optax, and the table of their names.

A variant is what `distill.adapt` drives on a key frame: optax's (init, update)
pair, or a `GradientStep`, which is such a pair with hooks. Adding one is a
factory and a row.
"""

from collections.abc import Callable
from typing import NamedTuple

import optax

from ojd.updates import (
  average,
  coordinates,
  guard,
  low_rank,
  plain,
  rehearsal,
  subset,
)
from ojd.updates import fast_head as fast_head_lib
from ojd.updates import top_k as top_k_lib
from ojd.updates.plain import MOMENTUM, adam, nesterov, sgd
from ojd.updates.step import GradientStep, answer, as_step, start

__all__ = [
  "MOMENTUM",
  "VARIANTS",
  "GradientStep",
  "Variant",
  "adam",
  "answer",
  "as_step",
  "nesterov",
  "sgd",
  "start",
]


class Variant(NamedTuple):
  """A row of the table."""

  # (learning rate) or, of those on a part of all coordinates, (rate, fraction).
  factory: Callable[..., optax.GradientTransformation | GradientStep]
  learning_rate: float  # where none is asked for
  has_fraction: bool = False


VARIANTS = {
  "sgd": Variant(plain.sgd, 0.01),
  "nesterov": Variant(plain.nesterov, 0.01),
  "adam": Variant(plain.adam, 0.001),
  "fast_head": Variant(fast_head_lib.fast_head, 0.0004),
  "decoder": Variant(subset.decoder, 0.01),
  "partial": Variant(subset.partial, 0.01),
  "partial_adam": Variant(subset.partial_adam, 0.01),
  "head": Variant(subset.head, 0.03),
  "norm_only": Variant(subset.norm_only, 0.03),
  "top_k": Variant(top_k_lib.top_k, 0.001, has_fraction=True),
  "first": Variant(coordinates.first, 0.001, has_fraction=True),
  "last": Variant(coordinates.last, 0.001, has_fraction=True),
  "both": Variant(coordinates.both, 0.001, has_fraction=True),
  "scattered": Variant(coordinates.scattered, 0.001, has_fraction=True),
  "rank1": Variant(low_rank.rank1, 0.01),
  "ema": Variant(average.ema, 0.01),
  "replay": Variant(rehearsal.replay, 0.01),
  "nonfinite_guard": Variant(guard.nonfinite_guard, 0.01),
}
