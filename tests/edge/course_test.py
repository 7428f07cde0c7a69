"""What a server makes of a system, and of flags that cannot be served."""

import dataclasses

import jax
import numpy as np
import pytest

from ojd import systems, updates
from ojd.edge import beginning, service
from ojd.edge.course import make_course
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


def test_course_goes_on_from_any_weights():
  course = make_course(STUDENT, _system_of, 16, 20, seed=0)
  named = beginning.flatten(
    STUDENT.init(jax.random.key(9), np.zeros((16, 20, 3), np.uint8))
  )
  state = course.begin(named)
  for name, array in course.answering(state).items():
    assert array.tobytes() == named[name].tobytes()
  frames, labels = scenes.coloured_squares(8)
  system = _system_of(STUDENT)
  given = STUDENT._replace(init=lambda key, frame: beginning.unflatten(named))
  whole = _system_of(given).init(jax.random.key(0), frames[0])
  for t in (0, 3, 5):
    here = Labels(labels.classes[t], labels.weights[t])
    state = course.skip(state, t - int(state.t))
    state, info = course.learn(state, frames[t], here)
    whole = system.serving.skip(whole, t - whole.t)
    whole, _, expected = jax.jit(system.learn)(whole, frames[t], here)
    parts = (state, info), (whole, expected)
    jax.tree.map(np.testing.assert_array_equal, *parts)
    # However late a key frame is, the next one is a stride after it.
    assert course.schedule(state).stride == int(info.stride)


@pytest.fixture(scope="module")
def made(small_students):
  del small_students
  return service.make_service(edge_run.CONFIG)


def test_sizes_that_are_served(made):
  assert made.offer.classes == "person" and made.offer.schedule.stride == 4
  assert made.offer.check_terms(TERMS) == ""
  for change, words in (
    ({"height": 16}, "32 to 8192"),
    ({"width": 64}, "the server takes 32x40 alone"),
    ({"codec": "h264"}, "h264"),
  ):
    assert words in made.offer.check_terms(TERMS._replace(**change))


def test_courses_are_shared_and_few(made):
  first = made.courses(TERMS)
  assert made.courses(TERMS._replace(fps=5.0)) is first
  for width in range(100, 110):
    made.courses(TERMS._replace(width=width))
  assert made.courses(TERMS) is not first


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
    service.make_service(config)
