"""Gradient steps: factories over optax, and the table of their names.

A step is what `distill.adapt` drives on a key frame: optax's (init, update)
pair, or a `GradientStep`, which is such a pair with hooks. A further step is a
factory and a row; the factory's keywords are its options, with their defaults.
"""

from ojd import specs
from ojd.updates.low_rank import rank1
from ojd.updates.optimizers import (
  MOMENTUM,
  adam,
  averaged,
  ema,
  fast_head,
  guarded,
  nesterov,
  nonfinite_guard,
  sgd,
)
from ojd.updates.replay_buffer import replay, with_replay
from ojd.updates.step import (
  GradientStep,
  Rate,
  Tx,
  as_step,
  serving_params,
  start,
)
from ojd.updates.subsets import (
  both_ends,
  decoder,
  first_layers,
  head,
  last_layers,
  norm_only,
  partial,
  partial_adam,
  random_coordinates,
  top_k,
)

__all__ = [
  "MOMENTUM",
  "STEPS",
  "GradientStep",
  "Rate",
  "Tx",
  "adam",
  "as_step",
  "averaged",
  "bind",
  "both_ends",
  "create",
  "decoder",
  "ema",
  "fast_head",
  "first_layers",
  "guarded",
  "head",
  "last_layers",
  "nesterov",
  "nonfinite_guard",
  "norm_only",
  "partial",
  "partial_adam",
  "random_coordinates",
  "rank1",
  "replay",
  "serving_params",
  "sgd",
  "start",
  "top_k",
  "with_replay",
]

# By --update names.
STEPS: dict[str, specs.Entry] = {
  factory.__name__: specs.Entry(factory)
  for factory in (
    *(sgd, nesterov, adam, fast_head),
    *(decoder, partial, partial_adam, head, norm_only),
    *(top_k, first_layers, last_layers, both_ends, random_coordinates),
    *(rank1, ema, replay, nonfinite_guard),
  )
}


def bind(text: str, learning_rate: float | None = None) -> specs.Bound:
  """A step's name and options, as `top_k:fraction=0.1`, checked.

  Args:
    text: by the grammar of `ojd.specs`.
    learning_rate: of `--learning_rate`; None: the step's own, or the text's.
  """
  given = {} if learning_rate is None else {"learning_rate": learning_rate}
  return specs.bind(text, STEPS, "update", given)


def create(text: str, *, learning_rate: Rate | None = None) -> Tx:
  """The gradient step of a text, as `sgd` or `top_k:fraction=0.1`.

  Args:
    text: as for `bind`.
    learning_rate: likewise, or an array of one, which is not checked.
  """
  if learning_rate is None or isinstance(learning_rate, (int, float)):
    return bind(text, learning_rate).make()
  options = {**bind(text).options, "learning_rate": learning_rate}
  return STEPS[specs.parse(text, "update").name].factory(**options)
