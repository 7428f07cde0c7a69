"""The table of methods: names, presets and prices."""

import jax
import numpy as np
import optax
import pytest

from ojd import systems
from ojd.costs import Costs
from ojd.errors import UserError
from ojd.run import stats
from ojd.types import Labels
from tests.reference import scenes, tiny_student

STUDENT = tiny_student.make()


def _costs(text):
  return systems.costs_of(systems.bind(text))


def _keys(text, num_frames=20):
  """The frames on which a method without a student asks its teacher."""
  frames, labels = scenes.coloured_squares(num_frames)
  system = systems.create(text, STUDENT, optax.identity())
  state, keys = system.init(jax.random.key(0), frames[0]), []
  learn, predict = jax.jit(system.learn), jax.jit(system.predict)
  for t, frame in enumerate(frames):
    if int(system.next_key(state)) == t:
      here = Labels(labels.classes[t], labels.weights[t])
      state, keys = learn(state, frame, here)[0], [*keys, t]
    else:
      state, _ = predict(state, frame)
  return keys


@pytest.mark.parametrize(
  ("text", "stride"),
  [
    ("copy_last:stride=5", 5),
    ("teacher", 1),
    ("flow:stride=5", 5),
    ("flow:slow", 8),
    ("flow:fast", 16),
  ],
)
def test_presets_and_options_set_the_stride(text, stride):
  assert _keys(text) == list(range(0, 20, stride))


@pytest.mark.parametrize(
  ("text", "known"),
  [
    (
      "jitt",
      "jit, jit_plus, jit_flow, shadowtutor, ams, fixed, frozen",
    ),
    ("", "NAME[:PRESET][:OPTION=VALUE]..."),
    ("flow:quick", "flow has no preset 'quick'; it has flow:slow, flow:fast"),
    ("flow:", "'' is no OPTION=VALUE"),
    ("osvos:C", "osvos has no preset 'C'"),
    ("osvos:mode=C", "mode=C: one of A, B"),
    ("jit:slow", "jit has no preset 'slow'; it has none"),
  ],
)
def test_unknown_name_and_preset_are_refused_with_the_known(text, known):
  with pytest.raises(UserError) as error:
    systems.bind(text)
  assert str(error.value).startswith(f"--system={text}: ")
  assert known in str(error.value) and "\n" not in str(error.value)


def test_prices_of_flow_are_those_of_the_papers_speedups():
  """Table 2: 2.2 times on 12.5% of the frames, 3.2 times on 6.2%."""
  for name, stride, factor in (("flow:slow", 8, 2.2), ("flow:fast", 16, 3.2)):
    costs = _costs(name)
    found = stats.paper_speedup(16_000, 16_000 // stride, 0, costs)
    assert found == pytest.approx(factor, abs=0.005)


def test_prices_of_osvos_are_an_hour_for_two_minutes():
  costs = _costs("osvos")
  spent = 300 * 3_600 / stats.paper_speedup(3_600, 120, 5_760, costs)
  # An hour of training, and the teacher on 120 frames.
  assert spent == 3_600e3 + 120 * 300


def test_prices_of_others():
  assert _costs("jit") == Costs(300, 7, 30, 0)
  speedup = lambda name, keys: stats.paper_speedup(1000, keys, 0, _costs(name))
  assert speedup("teacher", 1000) == 1
  assert speedup("copy_last", 125) == 8
  assert speedup("offline_oracle", 0) == pytest.approx(300 / 7)


@pytest.mark.parametrize("name", ["frozen", "offline_oracle"])
def test_student_that_never_learns_has_one_answer(name):
  frames, _ = scenes.coloured_squares(1)
  system = systems.create(name, STUDENT, optax.identity())
  state = system.init(jax.random.key(3), frames[0])
  assert int(system.next_key(state)) == np.iinfo(np.int32).max
  _, classes = system.predict(state, frames[0])
  expected = STUDENT.apply(
    STUDENT.init(jax.random.key(3), frames[0]), frames[0]
  )
  np.testing.assert_array_equal(classes, np.asarray(expected).argmax(-1))
