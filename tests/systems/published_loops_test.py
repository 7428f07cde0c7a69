"""ShadowTutor and OSVOS beside the loops that were published."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from ojd import losses, metrics, systems, updates
from ojd.systems.osvos import scale
from ojd.tasks.segmentation import classify, segmentation
from ojd.types import Labels
from tests.reference import host_loop, scenes, tiny_student
from tests.reference.compare import close, equal
from tests.reference.refusals import refused

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


SGD = updates.sgd(learning_rate=0.05)
PASSES, INTERVAL = 2, 3
ONE_CLASS = tiny_student.make(2)


def _scene(num_frames):
  frames, labels = scenes.coloured_squares(num_frames, height=40, width=50)
  return frames, labels._replace(classes=(labels.classes == 1).astype(np.uint8))


def _loss(params, frame, labels):
  return losses.weighted_cross_entropy(ONE_CLASS.apply(params, frame), labels)


_gradient = jax.jit(jax.grad(_loss))
_answer = jax.jit(lambda *given: classify(ONE_CLASS.apply(*given)))


def _round(params, frame, labels):
  """The updates one by one, on images made by pillow."""
  opt_state = SGD.init(params)
  forms = []
  for size in ((20, 25), (32, 40), (40, 50)):
    scaled, scaled_labels = scale(frame, labels, size[0] / frame.shape[0])
    assert scaled.shape == (*size, 3)
    if size != (40, 50):
      image = Image.fromarray(frame).resize(size[::-1], Image.BILINEAR)
      # Its rounding of weights is its own.
      off = np.asarray(image).astype(int) - np.asarray(scaled)
      assert np.abs(off).max() <= 2
      image = Image.fromarray(labels.classes).resize(size[::-1], Image.NEAREST)
      assert np.mean(np.asarray(image) != scaled_labels.classes) < 0.02
    forms.append((scaled, scaled_labels))
  move = jax.jit(SGD.update)
  for _ in range(PASSES):
    for frame, labels in forms:
      for step in (1, -1):
        mirrored = Labels(*(x[:, ::step] for x in labels))
        grads = _gradient(params, frame[:, ::step], mirrored)
        steps, opt_state = move(grads, opt_state, params)
        params = optax.apply_updates(params, steps)
  return params


@pytest.mark.parametrize("mode", ("A", "B"))
def test_rounds_are_those_of_a_loop(mode):
  frames, labels = _scene(INTERVAL + 1)
  system = systems.osvos(
    *(ONE_CLASS, SGD), mode=mode, interval=INTERVAL, num_passes=PASSES
  )
  state = host_loop.begin(system, frames[0])
  parent = jax.tree.map(np.array, state.params)
  learn, predict = jax.jit(system.learn), jax.jit(system.predict)
  expected = parent
  for t in (0, INTERVAL):
    assert int(system.next_key(state)) == t
    here = host_loop.labels_of(labels, t)
    before = _answer(state.params, frames[t])
    confusion = metrics.confusion_matrix(here.classes, np.asarray(before), 2)
    state, classes, info = learn(state, frames[t], here)
    expected = _round(parent if mode == "B" else expected, frames[t], here)
    close(state.params, expected, 2e-4, 1e-5)
    assert int(info.num_updates) == 6 * PASSES and not info.num_rolled_back
    assert info.stride == INTERVAL and info.grad_norm > 0
    np.testing.assert_allclose(info.miou_before, metrics.run_miou(confusion))
    answer = _answer(state.params, frames[t])
    np.testing.assert_array_equal(classes, answer)
    after = metrics.confusion_matrix(here.classes, np.asarray(answer), 2)
    np.testing.assert_allclose(info.miou_after, metrics.run_miou(after))
    for frame in frames[t + 1 : t + INTERVAL]:
      state, classes = predict(state, frame)
      answer = _answer(expected, frame)
      assert np.mean(np.asarray(classes) != answer) < 0.01


def test_round_that_leads_nowhere_is_undone():
  frames, labels = _scene(1)
  system = systems.osvos(ONE_CLASS, optax.sgd(jnp.inf), num_passes=PASSES)
  first = host_loop.begin(system, frames[0])
  learnt, classes, info = host_loop.first(system, frames, labels)
  equal(learnt.params, first.params)
  assert int(info.num_updates) == 0
  assert int(info.num_rolled_back) == 6 * PASSES
  assert np.isfinite(info.loss) and np.isfinite(info.miou_after)
  np.testing.assert_array_equal(classes, _answer(first.params, frames[0]))


def test_more_than_one_class_is_refused():
  with refused("segments one class, not 2"):
    systems.osvos(tiny_student.make(), SGD)
