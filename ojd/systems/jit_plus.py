"""Algorithm 1 that judges the student by what it has not learnt yet.

Algorithm 1 asks how well the student does on the very frame that it was just
fitted to, and so backs off from streams that it does not know. `jit_plus` lets
the stride follow the accuracy before the updates, goes on with them for longer
and by longer steps, and pays for that by key frames that are further apart.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ojd import distill, schedules
from ojd.models.student import Student
from ojd.systems import jit
from ojd.updates.step import Tx


class Extras(NamedTuple):
  """What `jit_plus` adds to `jit`; each field is a part of its own."""

  is_honest: bool = True  # the stride follows the accuracy before the updates
  # Of the least stride and of the most updates: as many a frame as before.
  stretch: float = 1.25
  zeal: float = 0.5  # how far the updates' threshold is moved towards 1
  boost: float = 5.0  # steps are longer by up to so much, where all is wrong


EVERYTHING = Extras()
NOTHING = Extras(is_honest=False, stretch=1.0, zeal=0.0, boost=0.0)


def jit_plus(
  student: Student,
  tx: Tx,
  *,
  a_thresh: ArrayLike = 0.8,
  delta_min: ArrayLike = 8,
  delta_max: ArrayLike = 64,
  u_max: ArrayLike = 8,
  u_min: ArrayLike = 0,
  norm: str = "frame",
  extras: Extras = EVERYTHING,
) -> distill.System:
  """`jit` and the extras; with `NOTHING` the same answers.

  Args:
    student: init and apply of one frame.
    tx: the gradient step.
    a_thresh: mean IoU that, exceeded before any update, doubles the stride.
    delta_min: least frames between teacher calls, before it is stretched.
    delta_max: most frames between teacher calls.
    u_max: most updates on a key frame, before it is stretched.
    u_min: least.
    norm: as for `jit.scheduled`.
    extras: what is added.
  """
  least = _stretched(delta_min, extras)

  def length(accuracy):
    return 1 + extras.boost * (1 - accuracy)

  return jit.scheduled(
    student,
    tx,
    schedules.exponential_backoff(
      least, jnp.maximum(delta_max, least), a_thresh
    ),
    a_thresh=a_thresh + extras.zeal * (1 - a_thresh),
    u_max=_stretched(u_max, extras),
    u_min=u_min,
    norm=norm,
    is_honest=extras.is_honest,
    length=length if extras.boost else None,
  )


def _stretched(count: ArrayLike, extras: Extras) -> jax.Array:
  return jnp.round(count * extras.stretch).astype(jnp.int32)
