"""The average answers; what learns is not touched by it."""

import jax
import numpy as np
import pytest

from ojd import distill, updates
from ojd.systems import jit as jit_lib
from ojd.updates import average
from tests.reference import layered_student

STUDENT = layered_student.STUDENT
FRAMES = layered_student.FRAMES
RATE = 0.05


def _assert_close(ours, theirs):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    ours,
    theirs,
  )


@pytest.mark.parametrize("jit", [False, True])
def test_average_of_all_updates_of_sgd(jit):
  """Three updates are three key frames of `sgd` with one update each."""
  tx = average.averaged(updates.sgd(RATE), decay=0.75)
  params, opt_state = layered_student.begin(tx)
  result = layered_student.adapting(tx, jit=jit)(params, opt_state, 0)
  sgd = updates.sgd(RATE)
  one = layered_student.adapting(sgd, num_updates=1)
  ours, sgd_state = layered_student.begin(sgd)
  expected = ours
  for _ in range(3):
    after = one(ours, sgd_state, 0)
    ours, sgd_state = after.params, after.opt_state
    expected = jax.tree.map(
      lambda old, new: 0.75 * old + 0.25 * new, expected, ours
    )
  _assert_close(result.params, ours)
  _assert_close(updates.answer(tx, result.params, result.opt_state), expected)


@pytest.mark.parametrize("norm", jit_lib.NORM_MODES)
def test_frames_between_key_frames_are_answered_by_it(norm):
  # A high rate: average and newest differ in what they say.
  tx = updates.VARIANTS["ema"].factory(0.5)
  constants = dict(stride=3, a_thresh=1.1, u_max=3, norm=norm)
  system = jit_lib.fixed(STUDENT, tx, **constants)
  state = jax.jit(system.init)(jax.random.key(0), FRAMES[0])
  learn = jax.jit(system.learn, donate_argnums=0)
  state, classes, _ = learn(state, FRAMES[0], layered_student.labels_of(0))

  def answers(params):
    if norm == "frame":
      return distill.classify(STUDENT.apply(params, FRAMES[1]))
    _, norms = STUDENT.observe(params, FRAMES[0])
    return distill.classify(STUDENT.apply_held(params, norms, FRAMES[1]))

  mean, newest = system.answering(state), state.params
  own = distill.classify(STUDENT.apply(newest, FRAMES[0]))
  assert np.mean(classes == own) > 0.99  # the key frame: by the newest
  _, classes = system.predict(state, FRAMES[1])
  assert np.mean(classes == answers(mean)) > 0.99
  assert np.mean(answers(newest) == answers(mean)) < 0.95


def test_of_a_part_the_others_are_the_students_own():
  tx = average.averaged(updates.VARIANTS["head"].factory(RATE))
  params, opt_state = layered_student.begin(tx)
  result = layered_student.adapting(tx)(params, opt_state, 0)
  mean = updates.answer(tx, result.params, result.opt_state)
  _assert_close(mean["conv1"], params["conv1"])
  head = [x["logits"]["kernel"] for x in (params, mean, result.params)]
  assert np.abs(head[0] - head[1]).max() > 0
  assert np.abs(head[2] - head[1]).max() > 0
