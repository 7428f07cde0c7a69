"""What a server makes of a system, and of flags that cannot be served."""

import dataclasses
import itertools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd import systems, updates
from ojd.edge import student as student_lib
from ojd.edge import training
from ojd.edge.training import FrameCount
from ojd.errors import UserError
from ojd.network.messages import Terms
from ojd.types import Labels
from tests.reference import edge_run, scenes, tiny_student

STUDENT = tiny_student.make()
TERMS = Terms(32, 40, 25.0, "raw", "person")


def _system_of(student):
  return systems.shadowtutor(
    student, updates.adam(learning_rate=0.05), delta_min=2, delta_max=16
  )


def _config(**flags):
  return dataclasses.replace(edge_run.CONFIG, **flags)


def test_system_goes_on_from_any_weights():
  remote = training.make_system(STUDENT, _system_of, 16, 20, seed=0)
  named = student_lib.flatten(
    STUDENT.init(jax.random.key(9), np.zeros((16, 20, 3), np.uint8))
  )
  state = remote.begin(named)
  for name, array in remote.serving_params(state).items():
    assert array.tobytes() == named[name].tobytes()
  frames, labels = scenes.coloured_squares(8)
  system = _system_of(STUDENT)
  given = STUDENT._replace(init=lambda key, frame: student_lib.unflatten(named))
  whole = _system_of(given).init(jax.random.key(0), frames[0])
  for t in (0, 3, 5):
    here = Labels(labels.classes[t], labels.weights[t])
    state = remote.skip(state, t - int(state.t))
    state, info = remote.learn(state, frames[t], here)
    whole = system.serving.skip(whole, t - whole.t)
    whole, _, expected = jax.jit(system.learn)(whole, frames[t], here)
    parts = (state, info), (whole, expected)
    jax.tree.map(np.testing.assert_array_equal, *parts)
    # However late a key frame is, the next one is a stride after it.
    assert remote.schedule(state).stride == int(info.stride)


@pytest.fixture(scope="module")
def made(small_students):
  del small_students
  return training.make_parts(edge_run.CONFIG)


def test_sizes_that_are_served(made):
  assert made.offer.classes == "person" and made.offer.schedule.stride == 4
  assert made.offer.check_terms(TERMS) == ""
  for change, words in (
    ({"height": 16}, "32 to 8192"),
    ({"width": 64}, "the server takes 32x40 alone"),
    ({"codec": "h264"}, "h264"),
  ):
    assert words in made.offer.check_terms(TERMS._replace(**change))


def test_systems_are_shared_and_few(made):
  first = made.systems(TERMS)
  assert made.systems(TERMS._replace(fps=5.0)) is first
  for width in range(100, 110):
    made.systems(TERMS._replace(width=width))
  assert made.systems(TERMS) is not first


@pytest.mark.usefixtures("small_students")
@pytest.mark.parametrize(
  ("config", "words"),
  [
    (_config(teacher="ground_truth"), "a stream of its own"),
    (_config(teacher="recorded:path=x"), "a stream of its own"),
    (_config(system="jit:norm=key_frame"), "would answer otherwise"),
    (edge_run.of_system("offline_oracle"), "whole stream beforehand"),
    (edge_run.of_system("copy_last"), "would answer otherwise"),
  ],
)
def test_what_cannot_be_served(config, words):
  with pytest.raises(UserError, match=words):
    training.make_parts(config)


def _ticks(times, fps=10.0):
  """(t, frames skipped before it, the count after it) of each frame."""
  count = FrameCount()
  for time in times:
    count, num_skipped = count.advance(time, fps)
    yield count.next_t - 1, num_skipped, count


def test_clock_counts_frames():
  ticks = list(_ticks([0.0, 0.8, 1.61, 1.7]))
  assert [t for t, _, _ in ticks] == [0, 8, 16, 17]
  assert [num for _, num, _ in ticks] == [0, 7, 7, 0]
  assert ticks[-1][2] == FrameCount(18, 0)


@pytest.mark.parametrize("jump", [-5.0, 0.0, 1e9, -1e300, 1e300])
def test_clock_that_jumps_counts_on(jump):
  ticks = list(_ticks([0.0, 2.0, jump, jump + 0.5]))
  assert [t for t, _, _ in ticks[:3]] == [0, 20, 21]
  assert ticks[2][1] == 0
  # From there on by the clock as it is; a double tells no half of 1e300.
  assert ticks[3][0] == (26 if abs(jump) < 1e300 else 22)


@hypothesis.given(st.lists(st.floats(-1e12, 1e12), max_size=30))
def test_no_clock_makes_the_server_go_back(times):
  ticks = [t for t, _, _ in _ticks(times)]
  assert all(a < b for a, b in itertools.pairwise(ticks))
  assert all(
    b - a <= training.MAX_SKIP + 1 for a, b in itertools.pairwise(ticks)
  )
