"""Steps that move some of the parameters; the others stay, bit for bit.

The gradient is taken of the parameters that train alone: nothing is propagated
to layers before the first of them.
"""

import functools
from collections.abc import Callable, Collection

from jax.typing import ArrayLike

from ojd.errors import UserError
from ojd.models import parts
from ojd.updates import plain
from ojd.updates.step import GradientStep, Tx, as_step


def only(
  inner: Tx, trains: Callable[[Collection[str]], Collection[str]]
) -> GradientStep:
  """`inner` on the parameters whose names `trains` picks."""
  return as_step(inner)._replace(trains=trains)


def head(learning_rate: ArrayLike) -> GradientStep:
  """`sgd` of the layer that makes the logits."""
  return _of_parts("head", plain.sgd(learning_rate), "head")


def partial(learning_rate: ArrayLike) -> GradientStep:
  """`sgd` behind ShadowTutor's cut, which is behind the first decoder block.

  Its frozen front has all layers up to that block, which is included.
  """
  return _of_parts("partial", plain.sgd(learning_rate), "decoder", "head")


def partial_adam(learning_rate: ArrayLike) -> GradientStep:
  """ShadowTutor's own step: Adam behind the same cut."""
  return _of_parts("partial_adam", plain.adam(learning_rate), "decoder", "head")


def decoder(learning_rate: ArrayLike) -> GradientStep:
  """`sgd` of all behind the encoder: `partial` with the first block too."""
  return _of_parts(
    "decoder", plain.sgd(learning_rate), "neck", "decoder", "head"
  )


def norm_only(learning_rate: ArrayLike) -> GradientStep:
  """`sgd` of the norms' scales and biases, in all layers."""
  pick = functools.partial(_pick, "norm_only", parts.of_norms)
  return only(plain.sgd(learning_rate), pick)


def _of_parts(name, inner, *wanted):
  find = lambda names: parts.of_parts(names, *wanted)
  return only(inner, functools.partial(_pick, name, find))


def _pick(name, find, names):
  """What `find` finds; a UserError where that is nothing."""
  found = find(names)
  if not found:
    raise UserError(
      f"--update={name}: this student has no such layers; choose another one"
    )
  return found
