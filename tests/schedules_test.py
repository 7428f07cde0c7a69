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
from tests.reference.compare import equal

T, U_MAX = 160, 3


def _last_accuracy(accuracies, t, a_thresh):
  """Accuracy on key frame t once its updates are over."""
  u = 0
  while u < U_MAX and accuracies[t][u] < a_thresh:
    u += 1
  return accuracies[t][u]


def _drive(schedule, last_accuracy, num_frames):
  """A frame at a time, as a system does; -> key frames, strides after them."""
  state, keys, strides = schedule.init(), [], []
  for t in range(num_frames):
    if schedules.should_label(schedule, state, t):
      state = schedule.advance(state, last_accuracy(t))
      keys.append(t)
      strides.append(int(schedule.stride(state)))
  return keys, strides


def _leap(schedule, last_accuracy, num_frames):
  """From key to key, as the host does, which asks after `advance` only."""
  state, keys = schedule.init(), []
  t = int(schedule.next_key(state, 0))
  while t < num_frames:
    keys.append(t)
    state = schedule.advance(state, last_accuracy(t))
    t = int(schedule.next_key(state, t + 1))
    assert t > keys[-1]
  return keys


def _transcribed(accuracies, *bounds, a_thresh):
  keys, _, strides = algorithm1.run(
    lambda t, u: accuracies[t][u],
    **dict(num_frames=len(accuracies), a_thresh=a_thresh, u_max=U_MAX),
    **dict(zip(("delta_min", "delta_max"), bounds, strict=True)),
  )
  return keys, strides


def _scan(accuracies, a_thresh, delta_min, delta_max):
  """[T] accuracies -> is_key [T], stride [T], inside one `lax.scan`."""
  schedule = schedules.exponential_backoff(delta_min, delta_max, a_thresh)

  def step(state, inputs):
    t, accuracy = inputs
    is_key = schedules.should_label(schedule, state, t)
    state = lax.cond(
      is_key, lambda s: schedule.advance(s, accuracy), lambda s: s, state
    )
    return state, (is_key, schedule.stride(state))

  frames = jnp.arange(accuracies.shape[0], dtype=jnp.int32)
  return lax.scan(step, schedule.init(), (frames, accuracies))[1]


_compiled_scan = jax.jit(_scan)

# Steps of 1/16 are exact in float32, and meet the threshold often.
_accuracies = st.builds(
  lambda seed, low: (
    np.random.default_rng(seed).integers(low, 17, (T, U_MAX + 1)) / 16
  ),
  st.integers(0, 2**32 - 1),
  st.integers(0, 15),
)
_thresholds = st.integers(0, 16).map(lambda i: i / 16)
_bounds = st.tuples(st.integers(1, 20), st.integers(0, 60)).map(
  lambda pair: (pair[0], sum(pair))
)


@settings(deadline=None, max_examples=200)
@given(_accuracies, _thresholds, _bounds)
def test_scan_follows_algorithm_1(accuracies, a_thresh, bounds):
  keys, strides = _transcribed(accuracies, *bounds, a_thresh=a_thresh)
  last = np.array(
    [_last_accuracy(accuracies, t, a_thresh) for t in range(T)], np.float32
  )
  is_key, stride = _compiled_scan(last, a_thresh, *bounds)
  assert np.flatnonzero(is_key).tolist() == keys
  assert np.asarray(stride)[keys].tolist() == strides


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("bounds", [(8, 64), (6, 50), (1, 1), (3, 7)])
def test_frame_by_frame_follows_algorithm_1(bounds, jit):
  accuracies = np.random.default_rng(0).integers(8, 17, (200, U_MAX + 1)) / 16
  a_thresh = 0.75
  schedule = schedules.exponential_backoff(*bounds, a_thresh)
  if jit:
    schedule = schedule._replace(
      next_key=jax.jit(schedule.next_key), advance=jax.jit(schedule.advance)
    )
  last = lambda t: _last_accuracy(accuracies, t, a_thresh)
  keys, strides = _transcribed(accuracies, *bounds, a_thresh=a_thresh)
  assert _drive(schedule, last, 200) == (keys, strides)
  assert _leap(schedule, last, 200) == keys


def test_next_key_is_the_least_multiple_from_t_on():
  schedule = schedules.exponential_backoff(8, 64, 0.5)
  state = schedule.advance(schedule.init(), 1.0)  # the stride is 16
  nexts = [int(schedule.next_key(state, t)) for t in (0, 1, 15, 16, 17, 33)]
  assert nexts == [0, 16, 16, 16, 32, 48]
  assert schedule.next_key(state, 1).dtype == np.int32


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_fixed_is_backoff_with_equal_bounds(accuracy):
  expected = list(range(0, 100, 7)), [7] * 15
  backoff = schedules.exponential_backoff(7, 7, 0.5)
  for schedule in (schedules.fixed(7), backoff):
    assert _drive(schedule, lambda t: accuracy, 100) == expected


@pytest.mark.parametrize("jit", [False, True])
def test_never_asks(jit):
  schedule = schedules.never()
  next_key = jax.jit(schedule.next_key) if jit else schedule.next_key
  state = schedule.advance(schedule.init(), 0.0)
  for t in (0, 1, 10**9):
    assert int(next_key(state, t)) == schedules.NEVER
    assert not schedules.should_label(schedule, state, t)
  assert int(schedule.stride(state)) == schedules.NEVER


def test_thresholds_in_one_call():
  accuracies = np.random.default_rng(1).random(T).astype(np.float32)
  thresholds = np.array([0.0, 0.3, 0.5, 1.0], np.float32)
  run = lambda a_thresh: _scan(accuracies, a_thresh, 2, 16)
  together = jax.jit(jax.vmap(run))(thresholds)
  for i, a_thresh in enumerate(thresholds):
    equal([x[i] for x in together], list(run(a_thresh)))
  num_keys = np.sum(together[0], axis=1).tolist()
  assert num_keys == sorted(num_keys) and len(set(num_keys)) > 2


def _published_stride(stride, accuracy, a_thresh, delta_min, delta_max):
  """The rule in plain numbers; `int` cuts off."""
  if accuracy > a_thresh:
    ratio = (accuracy + 1 - 2 * a_thresh) / (1 - a_thresh)
  else:
    ratio = accuracy / a_thresh
  return min(delta_max, max(delta_min, int(ratio * stride)))


@pytest.mark.parametrize(
  ("accuracies", "strides"),
  [
    # 0.75 keeps a stride, 1 doubles it, 0.875 makes it one and a half.
    ((1.0, 1.0, 1.0, 1.0), (16, 32, 64, 64)),
    ((0.875, 0.875, 0.875), (12, 18, 27)),
    ((1.0, 0.75, 0.375, 0.0), (16, 16, 8, 8)),
    # Of nine and a quarter is left nine; of a little more than eight, eight.
    ((0.7890625, 0.7578125), (9, 9)),
    ((0.76171875,), (8,)),
  ],
)
def test_ratio_rule_by_hand(accuracies, strides):
  schedule = schedules.ratio(8, 64, 0.75)
  state, key = schedule.init(), 0
  for accuracy, stride in zip(accuracies, strides, strict=True):
    assert int(schedule.next_key(state, key)) == key
    state = jax.jit(schedule.advance)(state, accuracy)
    key += stride
    assert int(schedule.stride(state)) == stride
    assert int(schedule.next_key(state, key - stride + 1)) == key


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), _bounds)
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
  rate = jnp.float32(0.5)
  assert schedules.sampling_rate(rate, 0.6) == rate
  np.testing.assert_allclose(
    schedules.sampling_rate(rate, 0.65), 0.5 - 0.2 * np.tanh(1), rtol=1e-6
  )
  slow = fast = rate
  for _ in range(10):
    slow = schedules.sampling_rate(slow, 0.95)
    fast = schedules.sampling_rate(fast, 0.1)
  assert (float(slow), float(fast)) == (np.float32(0.1), 1.0)


@pytest.mark.parametrize("jit", [False, True])
def test_training_rate_has_two_thresholds(jit):
  advance = schedules.advance_training
  advance = jax.jit(advance) if jit else advance
  state, periods = schedules.training_period(10.0), []
  for rate in [0.1] * 30 + [0.3] * 5 + [0.4] * 8 + [0.3] * 5:
    state = advance(state, rate, 10.0)
    periods.append(float(state.period))
  assert periods[:25] == [10 + 2 * i for i in range(1, 26)]
  # No longer than a minute; between the thresholds it stays as it is.
  assert set(periods[25:35]) == {60}
  # The mean of five is above 0.35 once three of them are 0.4.
  assert periods[35:37] == [60, 60] and periods[38:] == [10] * 10
