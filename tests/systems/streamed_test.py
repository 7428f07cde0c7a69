"""A system in two places beside itself in one; what arrives when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import systems, updates
from ojd.systems import streamed
from tests.reference import host_loop, scenes, tiny_student
from tests.reference.compare import equal

STUDENT = tiny_student.make()
FRAMES, LABELS = scenes.coloured_squares(30)
TX = updates.adam(learning_rate=0.05)
CONSTANTS = dict(a_thresh=0.75, delta_min=3, delta_max=12, u_max=8)


def _drive(system, delays=None, jit=True):
  """-> what was played, and the parameters learnt by key frame."""
  learnt, busy_until = {}, 0

  def seen(t, state):
    nonlocal busy_until
    if delays is not None and t >= busy_until:
      delay = delays[len(learnt)]
      state = streamed.postpone(state, delay)
      busy_until = t + delay
    learnt[t] = jax.tree.map(np.array, state.params)
    return state

  found = host_loop.play(system, FRAMES, LABELS, seen_fn=seen, jit=jit)
  return found, learnt


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
  one, learnt = _drive(system, jit=jit)
  other, apart = _drive(streamed.streamed(system, 3), jit=jit)
  equal((other.answers, other.infos, apart), (one.answers, one.infos, learnt))
  assert len(set(one.of("stride"))) > 1


def test_between_key_and_arrival_the_old_student_answers():
  system = systems.fixed(STUDENT, TX, stride=5, u_max=2, a_thresh=1.0)
  delays = [1, 4, 5, 9, 2, 1]
  # The fourth is late; what the fifth key taught goes with the sixth.
  found, learnt = _drive(streamed.streamed(system, 5), delays)
  answer = jax.jit(system.serving.predict)
  held = STUDENT.init(jax.random.key(0), FRAMES[0])
  arrivals, busy_until = {}, 0
  for (t, params), delay in zip(learnt.items(), delays, strict=True):
    if t >= busy_until:
      arrivals[t + delay], busy_until = params, t + delay
  assert sorted(arrivals) == [1, 9, 15, 24, 26]
  assert found.keys == [0, 5, 10, 15, 20, 25]
  for t, classes in enumerate(found.answers):
    held = arrivals.get(t, held)
    if t not in found.infos:
      np.testing.assert_array_equal(classes, answer(held, FRAMES[t]))


def test_the_stride_is_heard_of_when_the_student_is():
  """Of an accurate student the stride doubles; the device hears it late."""
  system = systems.jit(STUDENT, TX, a_thresh=0.0, delta_min=2, delta_max=8)
  apart = streamed.streamed(system, 2)
  assert int(apart.next_key(host_loop.begin(apart, FRAMES[0]))) == 0
  state, _, info = host_loop.first(apart, FRAMES, LABELS)
  assert int(info.stride) == 4
  late = streamed.postpone(state, 3)
  assert int(apart.next_key(late)) == 2  # as it knew
  for t in (1, 2, 3):
    late, _ = apart.predict(late, FRAMES[t])
  assert int(apart.next_key(late)) == 4  # the server's, and it is not over yet
  assert int(apart.next_key(streamed.postpone(state, 1))) == 4


def test_inside_a_scan():
  system = streamed.streamed(systems.jit(STUDENT, TX, **CONSTANTS), 3)
  _, (classes, infos) = host_loop.compiled_scan(system, FRAMES, LABELS)
  found, _ = _drive(system)
  np.testing.assert_array_equal(classes, found.answers)
  assert np.flatnonzero(infos.is_key).tolist() == found.keys


def test_never_asking_stays_so():
  system = streamed.streamed(systems.frozen(STUDENT), 8)
  found = host_loop.play(system, FRAMES[:3], LABELS)
  assert int(system.next_key(found.state)) == jnp.iinfo(jnp.int32).max
  assert found.keys == []
