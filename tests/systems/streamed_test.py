"""A system in two places beside itself in one; what arrives when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, systems, updates
from ojd.systems.streamed import postpone, streamed
from ojd.types import Labels
from tests.reference import scenes, tiny_student

STUDENT = tiny_student.make()
FRAMES, LABELS = scenes.coloured_squares(30)
TX = updates.adam(learning_rate=0.05)
CONSTANTS = dict(a_thresh=0.75, delta_min=3, delta_max=12, u_max=8)


def _labels_of(t):
  return Labels(LABELS.classes[t], LABELS.weights[t])


def _drive(system, delays=None, jit=True):
  """-> by frame (classes, is key), by key (info, learnt parameters)."""
  wrap = jax.jit if jit else lambda function: function
  learn, predict = wrap(system.learn), wrap(system.predict)
  state = system.init(jax.random.key(0), FRAMES[0])
  seen, keys, busy_until = [], [], 0
  for t, frame in enumerate(FRAMES):
    is_key = int(system.next_key(state)) == t
    if is_key:
      state, classes, info = learn(state, frame, _labels_of(t))
      if delays is not None and t >= busy_until:
        state = postpone(state, delays[len(keys)])
        busy_until = t + delays[len(keys)]
      params = jax.tree.map(np.array, state.params)
      keys.append((t, jax.tree.map(float, info), params))
    else:
      state, classes = predict(state, frame)
    seen.append(np.asarray(classes))
  if jit:
    assert predict._cache_size() == 1 and learn._cache_size() <= 2
  return seen, keys


@pytest.mark.parametrize(
  ("make", "jit"),
  [
    (systems.jit, True),
    (systems.shadowtutor, True),
    (systems.shadowtutor, False),
  ],
)
def test_over_nothing_at_all_it_is_the_system(make, jit):
  system = make(STUDENT, TX, **CONSTANTS)
  seen, keys = _drive(system, jit=jit)
  apart, apart_keys = _drive(streamed(system, 3), jit=jit)
  np.testing.assert_array_equal(seen, apart)
  for one, other in zip(keys, apart_keys, strict=True):
    assert one[:2] == other[:2]
    jax.tree.map(np.testing.assert_array_equal, one[2], other[2])
  assert len({info.stride for _, info, _ in keys}) > 1


def test_between_key_and_arrival_the_old_student_answers():
  system = systems.fixed(STUDENT, TX, stride=5, u_max=2, a_thresh=1.0)
  delays = [1, 4, 5, 9, 2, 1]
  # The fourth is late; what the fifth key taught goes with the sixth.
  seen, keys = _drive(streamed(system, 5), delays)
  answer = jax.jit(system.serving.predict)
  held = STUDENT.init(jax.random.key(0), FRAMES[0])
  arrivals, busy_until = {}, 0
  for (t, _, params), delay in zip(keys, delays, strict=True):
    if t >= busy_until:
      arrivals[t + delay], busy_until = params, t + delay
  assert sorted(arrivals) == [1, 9, 15, 24, 26]
  times = {t for t, *_ in keys}
  assert sorted(times) == [0, 5, 10, 15, 20, 25]
  for t, classes in enumerate(seen):
    held = arrivals.get(t, held)
    if t not in times:
      np.testing.assert_array_equal(classes, answer(held, FRAMES[t]))


def test_the_stride_is_heard_of_when_the_student_is():
  """Of an accurate student the stride doubles; the device hears it late."""
  system = systems.jit(STUDENT, TX, a_thresh=0.0, delta_min=2, delta_max=8)
  apart = streamed(system, 2)
  state = apart.init(jax.random.key(0), FRAMES[0])
  assert int(apart.next_key(state)) == 0
  state, _, info = apart.learn(state, FRAMES[0], _labels_of(0))
  assert int(info.stride) == 4
  late = postpone(state, 3)
  assert int(apart.next_key(late)) == 2  # as it knew
  for t in (1, 2, 3):
    late, _ = apart.predict(late, FRAMES[t])
  assert int(apart.next_key(late)) == 4  # the server's, and it is not over yet
  assert int(apart.next_key(postpone(state, 1))) == 4


def test_inside_a_scan():
  system = streamed(systems.jit(STUDENT, TX, **CONSTANTS), 3)
  state = system.init(jax.random.key(0), FRAMES[0])
  scan = jax.jit(
    lambda state: distill.scan_stream(system, state, FRAMES, LABELS)
  )
  _, (classes, infos) = scan(state)
  seen, keys = _drive(system)
  np.testing.assert_array_equal(classes, seen)
  assert np.flatnonzero(infos.is_key).tolist() == [t for t, *_ in keys]


def test_never_asking_stays_so():
  system = streamed(systems.frozen(STUDENT), 8)
  state = system.init(jax.random.key(0), FRAMES[0])
  for frame in FRAMES[:3]:
    assert int(system.next_key(state)) == jnp.iinfo(jnp.int32).max
    state, _ = system.predict(state, frame)
