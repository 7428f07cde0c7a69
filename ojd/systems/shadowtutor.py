"""ShadowTutor: a server trains a part of the student and sends that part.

It differs from Algorithm 1 in the stride, which is multiplied by what the
accuracy is worth; in what goes on after a key frame, the best student of those
that were tried; and in its step, Adam on the layers behind a frozen front.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from ojd import distill, schedules
from ojd.models.student import Student
from ojd.systems import jit
from ojd.updates.step import Tx


def shadowtutor(
  student: Student,
  tx: Tx,
  *,
  a_thresh: ArrayLike = 0.8,
  delta_min: int = 8,
  delta_max: int = 64,
  u_max: int = 8,
  u_min: int = 0,
  norm: str = "frame",
) -> distill.System:
  """ShadowTutor with its published constants, server and device in one.

  Args:
    student: init and apply of one frame.
    tx: the gradient step; what it does not train is never sent.
    a_thresh: mean IoU that, exceeded, ends the updates, and keeps the stride.
    delta_min: least frames between teacher calls.
    delta_max: most frames between teacher calls.
    u_max: most updates on a key frame.
    u_min: least.
    norm: as for `jit.scheduled`.
  """
  system = jit.scheduled(
    student,
    tx,
    schedules.ratio(delta_min, delta_max, a_thresh),
    # To be exceeded, not met.
    a_thresh=jnp.nextafter(jnp.float32(a_thresh), jnp.float32(2)),
    u_max=u_max,
    u_min=u_min,
    norm=norm,
    keep_best=True,
  )
  return system._replace(skip=_skip)


def _skip(state: jit.JitState, num: ArrayLike) -> jit.JitState:
  """A key frame that comes late is the one that was due.

  Else each would leave the rule farther behind, until every frame is due.
  """
  t = state.t + num
  due = jnp.maximum(state.schedule.due, t)
  return state._replace(t=t, schedule=state.schedule._replace(due=due))
