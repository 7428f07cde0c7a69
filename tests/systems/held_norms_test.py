"""`norm="key_frame"`: by the last key frame's statistics, and nothing else."""

import jax
import numpy as np
import pytest

from ojd import distill, systems, updates
from ojd.models.student import from_linen
from ojd.tasks.segmentation import classify
from ojd.types import Labels
from tests.reference import scenes, small_run

STUDENT = from_linen(small_run.SmallNet(num_classes=3))
TX = updates.sgd(learning_rate=0.05)


def _system(norm, **constants):
  return systems.fixed(STUDENT, TX, stride=3, u_max=2, norm=norm, **constants)


def _labels(labels, t):
  return Labels(labels.classes[t], labels.weights[t])


def _learnt(system, frames, labels):
  state = system.init(jax.random.key(0), frames[0])
  return system.learn(state, frames[0], _labels(labels, 0))


def test_frame_learnt_from_is_answered_as_it_was_left():
  frames, labels = scenes.coloured_squares(2)
  state, classes, _ = _learnt(_system("key_frame"), frames, labels)
  _, again = _system("key_frame").predict(state, frames[0])
  np.testing.assert_array_equal(again, classes)


def test_later_frame_is_normed_by_the_key_frame():
  frames, labels = scenes.coloured_squares(2)
  system = _system("key_frame")
  state, _, _ = _learnt(system, frames, labels)
  # Other statistics: the frame's own would make up for some of it.
  later = (frames[1] // 3).astype(np.uint8)
  _, norms = STUDENT.observe(state.params, frames[0])
  expected = STUDENT.apply_held(state.params, norms, later)
  own = STUDENT.apply(state.params, later)
  state, classes = system.predict(state, later)
  np.testing.assert_array_equal(classes, classify(expected))
  assert np.abs(expected - own).max() > 0.1
  # The norms stay those of the key frame, however many frames pass.
  _, again = system.predict(state, later)
  np.testing.assert_array_equal(again, classes)


def test_before_the_first_key_frame_a_frame_norms_itself():
  frames, _ = scenes.coloured_squares(1)
  answers = []
  for norm in ("frame", "key_frame"):
    system = _system(norm)
    state = system.init(jax.random.key(0), np.zeros_like(frames[0]))
    answers.append(system.predict(state, frames[0])[1])
  np.testing.assert_array_equal(*answers)


def test_norms_do_not_touch_what_is_learnt():
  frames, labels = scenes.coloured_squares(2)
  held, _, _ = _learnt(_system("key_frame"), frames, labels)
  free, _, _ = _learnt(_system("frame"), frames, labels)
  jax.tree.map(np.testing.assert_array_equal, held.params, free.params)
  assert free.norms == ()


@pytest.mark.parametrize("norm", ("frame", "key_frame"))
def test_scan_equals_the_host_loop(norm):
  frames, labels = scenes.coloured_squares(8)
  system = _system(norm)
  state = system.init(jax.random.key(0), frames[0])
  _, (together, infos) = jax.jit(
    lambda state: distill.scan_stream(system, state, frames, labels)
  )(state)
  learn, predict = jax.jit(system.learn), jax.jit(system.predict)
  for t, frame in enumerate(frames):
    if int(system.next_key(state)) == t:
      state, classes, _ = learn(state, frame, _labels(labels, t))
    else:
      state, classes = predict(state, frame)
    np.testing.assert_array_equal(together[t], classes)
  assert infos.is_key.sum() == 3
