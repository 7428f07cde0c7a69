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


class RatioState(NamedTuple):
  """State of the ratio rule."""

  stride: jax.Array  # int32
  due: jax.Array  # int32, the next key frame


def ratio(delta_min: int, delta_max: int, a_thresh: ArrayLike) -> Schedule:
  """ShadowTutor's: the stride is multiplied by what the accuracy is worth.

  The factor rises in a line from 0 at no accuracy over 1 at the threshold to 2
  at full accuracy; a broken frame is none. Key frames are a stride apart,
  wherever that falls.

  Args:
    delta_min: least stride, and the first.
    delta_max: greatest stride.
    a_thresh: accuracy that keeps the stride, in (0, 1).
  """

  def init():
    stride = jnp.asarray(delta_min, jnp.int32)
    return RatioState(stride, jnp.zeros((), jnp.int32))

  def next_key(state, t):
    return jnp.maximum(state.due, jnp.asarray(t, jnp.int32))

  def advance(state, accuracy):
    above = (accuracy + 1 - 2 * a_thresh) / (1 - a_thresh)
    factor = jnp.where(accuracy > a_thresh, above, accuracy / a_thresh)
    stride = jnp.floor(factor * state.stride).astype(jnp.int32)
    stride = jnp.clip(stride, delta_min, delta_max)
    return RatioState(stride, state.due + stride)

  return Schedule(init, next_key, advance, lambda state: state.stride)


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


# Of adaptive model streaming; rates in parts of the greatest.
_LEAST_RATE = 0.1
_RATE_STEP, _RATE_SLOPE = 0.2, 20.0
_SIMILARITY = 0.6  # of labels that follow each other, neither fast nor slow


def sampling_rate(
  rate: ArrayLike, similarity: ArrayLike, greatest: ArrayLike = 1.0
) -> jax.Array:
  """AMS's sampling: more frames a second where labels change faster.

  Args:
    rate: so far, frames a second.
    similarity: mean IoU of labels with those before them, on average.
    greatest: rate; the least is a tenth of it.
  """
  change = jnp.tanh(_RATE_SLOPE * (similarity - _SIMILARITY))
  rate = rate - _RATE_STEP * greatest * change
  return jnp.clip(rate, _LEAST_RATE * greatest, greatest)


class TrainingState(NamedTuple):
  """State of AMS's training rate."""

  period: jax.Array  # float32, seconds between training rounds
  is_slow: jax.Array  # bool
  rates: jax.Array  # [5] float32, the last sampling rates, NaN before


# Of the greatest sampling rate; between them it is as it was.
_SLOW_BELOW, _FAST_ABOVE = 0.25, 0.35
_SLOWER_BY, _SLOWEST = 0.2, 6.0  # a round, and at last; times the first period
_NUM_RATES = 5


def training_period(period: float) -> TrainingState:
  """The first state of the training rate."""
  return TrainingState(
    jnp.asarray(period, jnp.float32),
    jnp.zeros((), bool),
    jnp.full(_NUM_RATES, jnp.nan, jnp.float32),
  )


def advance_training(
  state: TrainingState,
  rate: ArrayLike,
  first_period: ArrayLike,
  greatest: ArrayLike = 1.0,
) -> TrainingState:
  """AMS's training rate: fewer rounds for streams that hardly change.

  Args:
    state: before this training round.
    rate: the sampling rate now.
    first_period: that of `training_period`, to which it comes back.
    greatest: sampling rate.
  """
  rates = jnp.append(state.rates[1:], jnp.asarray(rate, jnp.float32))
  mean = jnp.nanmean(rates) / greatest
  is_slow = jnp.where(state.is_slow, mean <= _FAST_ABOVE, mean < _SLOW_BELOW)
  slower = state.period + _SLOWER_BY * first_period
  slower = jnp.minimum(slower, _SLOWEST * first_period)
  period = jnp.where(is_slow, slower, first_period)
  return TrainingState(period, is_slow, rates)
