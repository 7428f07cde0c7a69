"""Key frames against Algorithm 1; the schedule in jit, vmap and scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ojd import schedules
from tests.reference import algorithm1

T, U_MAX = 160, 3


def _is_key(schedule, state, t):
  return schedule.next_key(state, t) == t


def _last_accuracies(accuracies, a_thresh):
  """Accuracy on each frame once its updates are over, as a key frame."""
  is_over = accuracies >= a_thresh
  is_over[:, -1] = True
  return accuracies[np.arange(len(accuracies)), is_over.argmax(1)]


def _leap(schedule, last, num_frames):
  """From key to key, as the host does; -> key frames, strides after them."""
  state, keys, strides = schedule.init(), [], []
  t = int(schedule.next_key(state, 0))
  while t < num_frames:
    assert _is_key(schedule, state, t)
    state = schedule.advance(state, last[t])
    keys.append(t)
    strides.append(int(schedule.stride(state)))
    t = int(schedule.next_key(state, t + 1))
    assert t > keys[-1]
  return keys, strides


def _transcribed(accuracies, a_thresh, delta_min, delta_max):
  keys, _, strides = algorithm1.run(
    lambda t, u: accuracies[t][u],
    num_frames=len(accuracies),
    a_thresh=a_thresh,
    delta_min=delta_min,
    delta_max=delta_max,
    u_max=U_MAX,
  )
  return keys, strides


def _scan(accuracies, a_thresh, delta_min, delta_max):
  """[T] accuracies -> is_key [T], stride [T], inside one `lax.scan`."""
  schedule = schedules.exponential_backoff(delta_min, delta_max, a_thresh)

  def step(state, inputs):
    t, accuracy = inputs
    is_key = _is_key(schedule, state, t)
    state = lax.cond(
      is_key, lambda s: schedule.advance(s, accuracy), lambda s: s, state
    )
    return state, (is_key, schedule.stride(state))

  frames = jnp.arange(accuracies.shape[0], dtype=jnp.int32)
  return lax.scan(step, schedule.init(), (frames, accuracies))[1]


_compiled_scan = jax.jit(_scan)

_seeds = st.integers(0, 2**32 - 1)
_bounds = st.tuples(st.integers(1, 20), st.integers(0, 60)).map(
  lambda pair: (pair[0], sum(pair))
)


@settings(deadline=None, max_examples=200)
@given(_seeds, st.integers(0, 15), st.integers(0, 16), _bounds)
def test_scan_follows_algorithm_1(seed, low, threshold, bounds):
  """Steps of 1/16 are exact in float32, and meet the threshold often."""
  rng = np.random.default_rng(seed)
  accuracies, a_thresh = (
    rng.integers(low, 17, (T, U_MAX + 1)) / 16,
    threshold / 16,
  )
  keys, strides = _transcribed(accuracies, a_thresh, *bounds)
  last = _last_accuracies(accuracies, a_thresh).astype(np.float32)
  is_key, stride = _compiled_scan(last, a_thresh, *bounds)
  assert np.flatnonzero(is_key).tolist() == keys
  assert np.asarray(stride)[keys].tolist() == strides


@pytest.mark.parametrize("bounds", [(8, 64), (6, 50), (1, 1), (3, 7)])
def test_key_by_key_follows_algorithm_1(bounds):
  accuracies = np.random.default_rng(0).integers(8, 17, (200, U_MAX + 1)) / 16
  schedule = schedules.exponential_backoff(*bounds, 0.75)
  expected = _transcribed(accuracies, 0.75, *bounds)
  assert _leap(schedule, _last_accuracies(accuracies, 0.75), 200) == expected


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_fixed_asks_every_stride(accuracy):
  found = _leap(schedules.fixed(7), [accuracy] * 100, 100)
  assert found == (list(range(0, 100, 7)), [7] * 15)


def test_never_asks():
  schedule = schedules.never()
  next_key = jax.jit(schedule.next_key)
  state = schedule.advance(schedule.init(), 0.0)
  for t in (0, 1, 10**9):
    assert int(next_key(state, t)) == schedules.NEVER
    assert not _is_key(schedule, state, t)
  assert int(schedule.stride(state)) == schedules.NEVER


def _published_stride(stride, accuracy, a_thresh, delta_min, delta_max):
  """The rule in plain numbers; `int` cuts off."""
  if accuracy > a_thresh:
    ratio = (accuracy + 1 - 2 * a_thresh) / (1 - a_thresh)
  else:
    ratio = accuracy / a_thresh
  return min(delta_max, max(delta_min, int(ratio * stride)))


@settings(deadline=None, max_examples=100)
@given(_seeds, _bounds)
def test_ratio_rule_is_the_published_one(seed, bounds):
  accuracies = np.random.default_rng(seed).integers(0, 257, 40) / 256
  schedule = schedules.ratio(*bounds, 0.75)
  expected, stride = [], bounds[0]
  for accuracy in accuracies:
    stride = _published_stride(stride, accuracy, 0.75, *bounds)
    expected.append(stride)

  def step(state, accuracy):
    state = schedule.advance(state, accuracy)
    return state, (schedule.stride(state), state.due)

  first = schedule.init()
  _, (strides, dues) = lax.scan(step, first, jnp.asarray(accuracies))
  assert strides.tolist() == expected
  assert dues.tolist() == np.cumsum(expected).tolist()


def test_sampling_rate_follows_how_much_labels_change():
  slow = fast = rate = jnp.float32(0.5)
  assert schedules.sampling_rate(rate, 0.6) == rate
  np.testing.assert_allclose(
    schedules.sampling_rate(rate, 0.65), 0.5 - 0.2 * np.tanh(1), rtol=1e-6
  )
  for _ in range(10):
    slow = schedules.sampling_rate(slow, 0.95)
    fast = schedules.sampling_rate(fast, 0.1)
  assert (float(slow), float(fast)) == (np.float32(0.1), 1.0)


def test_training_rate_has_two_thresholds():
  advance = jax.jit(schedules.advance_training)
  state, periods = schedules.training_period(10.0), []
  for rate in [0.1] * 30 + [0.3] * 5 + [0.4] * 8 + [0.3] * 5:
    state = advance(state, rate, 10.0)
    periods.append(float(state.period))
  assert periods[:25] == [10 + 2 * i for i in range(1, 26)]
  # No longer than a minute; between the thresholds it stays as it is.
  assert set(periods[25:35]) == {60}
  # The mean of five is above 0.35 once three of them are 0.4.
  assert periods[35:37] == [60, 60] and periods[38:] == [10] * 10
