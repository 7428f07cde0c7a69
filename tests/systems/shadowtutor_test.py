"""ShadowTutor's key frame and stride beside the loop that was published."""

import copy

import jax
import numpy as np
import optax
import pytest

from ojd import losses, systems, updates
from ojd.tasks.segmentation import classify, segmentation
from tests.reference import host_loop, scenes, tiny_student
from tests.reference.compare import close

STUDENT = tiny_student.make()
# Seven eighths is exact: of an even stride the rule cuts nothing off by chance.
CONSTANTS = dict(a_thresh=0.875, delta_min=2, delta_max=16, u_max=8)


def _look(params, frame, labels):
  logits = STUDENT.apply(params, frame)
  classes = classify(logits)
  accuracy = segmentation(STUDENT.num_classes).accuracy(labels, classes)
  return losses.weighted_cross_entropy(logits, labels), (classes, accuracy)


def _published(tx, params, state, frame, labels, a_thresh, u_max):
  """Steps, the best of the students with its optimizer; -> how many, how."""
  value_and_grad = jax.value_and_grad(_look, has_aux=True)
  (_, (classes, accuracy)), grads = value_and_grad(params, frame, labels)
  best, num_steps = (float(accuracy), params, state, classes), 0
  while accuracy <= a_thresh and num_steps < u_max:
    steps, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, steps)
    num_steps += 1
    (_, (classes, accuracy)), grads = value_and_grad(params, frame, labels)
    if accuracy > best[0]:
      best = (float(accuracy), *copy.deepcopy((params, state, classes)))
  return best, num_steps


@pytest.mark.parametrize(
  ("rate", "has_noise"), [(0.05, False), (1.0, False), (1.0, True)]
)
def test_key_frame_is_the_published_one(rate, has_noise):
  """What is drawn at random is not learnt: there the best is not the last."""
  tx = updates.adam(learning_rate=rate)
  system = systems.shadowtutor(STUDENT, tx, **CONSTANTS)
  frames, labels = scenes.coloured_squares(6)
  if has_noise:
    drawn = np.random.default_rng(0).integers(0, 3, labels.classes.shape)
    labels = labels._replace(classes=drawn.astype(np.uint8))
  learn = jax.jit(system.learn)
  state = system.init(jax.random.key(3), frames[0])
  params, opt_state = state.params, state.opt_state
  stride, before, num_past_best = 2, 0, 0
  for t in range(6):
    here = host_loop.labels_of(labels, t)
    (accuracy, params, opt_state, classes), num_steps = _published(
      *(tx, params, opt_state, frames[t], here), 0.875, 8
    )
    last = _look(params, frames[t], here)[1][1]
    state, answer, info = learn(state, frames[t], here)
    assert int(info.num_updates) == num_steps
    np.testing.assert_allclose(info.miou_after, accuracy, rtol=1e-6)
    np.testing.assert_allclose(last, accuracy, rtol=1e-6)
    np.testing.assert_array_equal(answer, classes)
    ours = state.params, state.opt_state
    close(ours, (params, opt_state), 1e-4, 1e-5)
    count = int(opt_state[0].count)
    num_past_best += num_steps - (count - before)
    before = count
    ratio = accuracy / 0.875
    if accuracy > 0.875:
      ratio = (accuracy + 1 - 1.75) / 0.125
    stride = min(16, max(2, int(ratio * stride)))
    assert int(info.stride) == stride
  assert (num_past_best > 0) >= has_noise


def test_threshold_has_to_be_exceeded():
  stream = frames, labels = scenes.coloured_squares(1)
  params = STUDENT.init(jax.random.key(0), frames[0])
  here = host_loop.labels_of(labels, 0)
  reached = float(_look(params, frames[0], here)[1][1])
  for a_thresh, num_updates in ((reached, 8), (reached - 1e-6, 0)):
    constants = CONSTANTS | {"a_thresh": a_thresh}
    system = systems.shadowtutor(STUDENT, optax.sgd(0.0), **constants)
    _, _, info = host_loop.first(system, *stream)
    assert int(info.num_updates) == num_updates
