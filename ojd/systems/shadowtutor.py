"""ShadowTutor: a server trains a part of the student and sends that part.

It differs from Algorithm 1 in three points: a function of the accuracy
multiplies the stride; the best student of those tried on a key frame goes on;
and the step is Adam on the layers behind a frozen front.
"""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from ojd import distill, schedules
from ojd.models.student import Student
from ojd.specs import extends
from ojd.systems.jit import JitState, jit, scheduled
from ojd.updates.step import Tx


@extends(jit)
def shadowtutor(student: Student, tx: Tx, **options: Any) -> distill.System:
  """ShadowTutor: the decoder alone learns, and the stride follows the accuracy.

  With its published constants, server and device in one (Chung et al.,
  "ShadowTutor: Distributed Partial Distillation for Mobile Video DNN
  Inference", ICPP 2020).

  Args:
    tx: the gradient step; what it does not train is never sent.
    a_thresh: accuracy that, exceeded, ends the updates, and keeps the stride.
    **options: those of `jit`.
  """
  a_thresh = options.pop("a_thresh")
  delta_min, delta_max = options.pop("delta_min"), options.pop("delta_max")
  system = scheduled(
    student,
    tx,
    schedules.ratio(delta_min, delta_max, a_thresh),
    # To be exceeded, not met.
    a_thresh=jnp.nextafter(jnp.float32(a_thresh), jnp.float32(2)),
    keep_best=True,
    **options,
  )
  return system._replace(serving=system.serving._replace(skip=_skip))


def _skip(state: JitState, num: ArrayLike) -> JitState:
  """A key frame that comes late counts as the one that was due.

  Otherwise the schedule falls behind, until every frame is due.
  """
  t = state.t + num
  due = jnp.maximum(state.schedule.due, t)
  return state._replace(t=t, schedule=state.schedule._replace(due=due))
