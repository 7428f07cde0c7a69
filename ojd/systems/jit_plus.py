"""Algorithm 1 that judges the student by what it has not learned yet.

Algorithm 1 measures the accuracy on the very frame that the student was just
fitted to, and so backs off from streams that it does not know. `jit_plus` lets
the stride follow the accuracy before the updates, makes more and larger updates
and pays for them by key frames that are further apart.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ojd import distill, schedules
from ojd.models.student import Student
from ojd.specs import Range, extends
from ojd.systems.jit import jit, scheduled
from ojd.updates.step import Tx


@extends(jit)
def jit_plus(
  student: Student,
  tx: Tx,
  *,
  pre_update_schedule: bool = True,
  target_margin: Annotated[float, Range(0, 1)] = 0.5,
  step_scale: Annotated[float, Range(0, 1000)] = 5.0,
  stride_scale: Annotated[float, Range(0.01, 1000)] = 1.25,
  **options: Any,
) -> distill.System:
  """Algorithm 1 whose stride follows the accuracy before the updates.

  It is `jit` with `pre_update_schedule=False`, `target_margin=0`,
  `step_scale=0` and `stride_scale=1`.

  Args:
    student: init and apply of one frame.
    tx: the gradient step.
    a_thresh: accuracy that, exceeded before any update, doubles the stride.
    pre_update_schedule: whether the stride follows the accuracy before the
      updates rather than after them.
    target_margin: how far the accuracy that ends the updates is moved from
      a_thresh towards 1.
    step_scale: updates are up to this much larger, at accuracy 0.
    stride_scale: factor of delta_min and of u_max.
    **options: those of `jit`.
  """
  a_thresh = options.pop("a_thresh")
  delta_min = _scaled(options.pop("delta_min"), stride_scale)
  delta_max = jnp.maximum(options.pop("delta_max"), delta_min)

  def scale(accuracy):
    return 1 + step_scale * (1 - accuracy)

  return scheduled(
    student,
    tx,
    schedules.exponential_backoff(delta_min, delta_max, a_thresh),
    a_thresh=a_thresh + target_margin * (1 - a_thresh),
    u_max=_scaled(options.pop("u_max"), stride_scale),
    pre_update_schedule=pre_update_schedule,
    step_scale=scale if step_scale else None,
    **options,
  )


def _scaled(count: ArrayLike, factor: float) -> jax.Array:
  return jnp.round(count * factor).astype(jnp.int32)
