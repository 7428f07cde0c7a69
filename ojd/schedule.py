"""When the teacher is asked: pure functions of a small state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

NEVER = jnp.iinfo(jnp.int32).max


class Schedule(NamedTuple):
  """A rule for key frames, made by one of the factories below."""

  init: Callable[[], Any]  # () -> state
  next_key: Callable[[Any, ArrayLike], jax.Array]  # least key frame >= t
  advance: Callable[[Any, ArrayLike], Any]  # state after a key frame's accuracy
  stride: Callable[[Any], jax.Array]  # int32, frames from key to key


def should_label(schedule: Schedule, state: Any, t: ArrayLike) -> jax.Array:
  """Whether frame t is a key frame; bool."""
  return schedule.next_key(state, t) == t


class BackoffState(NamedTuple):
  """State of the exponential back-off and of the fixed stride."""

  stride: jax.Array  # int32


def _next_multiple(state: BackoffState, t: ArrayLike) -> jax.Array:
  """The least multiple of the stride from t on (Algorithm 1, t mod stride)."""
  t = jnp.asarray(t, jnp.int32)
  return -(-t // state.stride) * state.stride


def exponential_backoff(
  delta_min: int, delta_max: int, a_thresh: ArrayLike
) -> Schedule:
  """Algorithm 1: the stride doubles above the threshold, else halves.

  Args:
    delta_min: least stride, and the first.
    delta_max: greatest stride.
    a_thresh: accuracy that must be exceeded, in [0, 1].
  """

  def init():
    return BackoffState(jnp.asarray(delta_min, jnp.int32))

  def advance(state, accuracy):
    longer = jnp.minimum(delta_max, 2 * state.stride)
    shorter = jnp.maximum(delta_min, state.stride // 2)
    return BackoffState(jnp.where(accuracy > a_thresh, longer, shorter))

  return Schedule(init, _next_multiple, advance, lambda state: state.stride)


def fixed(stride: int) -> Schedule:
  """Every stride-th frame; the back-off with equal least and greatest."""
  return exponential_backoff(stride, stride, a_thresh=1.0)


def never() -> Schedule:
  """No frame at all: the student stays as it is."""

  def next_key(state, t):
    del state, t  # no frame is ever due
    return jnp.asarray(NEVER, jnp.int32)

  return Schedule(
    init=lambda: (),
    next_key=next_key,
    advance=lambda state, accuracy: state,
    stride=lambda state: jnp.asarray(NEVER, jnp.int32),
  )
