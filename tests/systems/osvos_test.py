"""Training on one frame, beside a loop written out; the parent in mode B."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from ojd import losses, metrics, systems, updates
from ojd.errors import UserError
from ojd.systems.osvos import scale
from ojd.tasks.segmentation import classify
from ojd.types import Labels
from tests.reference import host_loop, scenes, tiny_student
from tests.reference.compare import close, equal

TX = updates.sgd(learning_rate=0.05)
PASSES, INTERVAL = 2, 3


STUDENT = tiny_student.make(2)


def _scene(num_frames):
  frames, labels = scenes.coloured_squares(num_frames, height=40, width=50)
  return frames, labels._replace(classes=(labels.classes == 1).astype(np.uint8))


def _loss(params, frame, labels):
  return losses.weighted_cross_entropy(STUDENT.apply(params, frame), labels)


_gradient = jax.jit(jax.grad(_loss))
_answer = jax.jit(lambda *given: classify(STUDENT.apply(*given)))


def _round(params, frame, labels):
  """The updates one by one, on images made by pillow."""
  opt_state = TX.init(params)
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
  move = jax.jit(TX.update)
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
    *(STUDENT, TX), mode=mode, interval=INTERVAL, num_passes=PASSES
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
  system = systems.osvos(STUDENT, optax.sgd(jnp.inf), num_passes=PASSES)
  first = host_loop.begin(system, frames[0])
  learnt, classes, info = host_loop.first(system, frames, labels)
  equal(learnt.params, first.params)
  assert int(info.num_updates) == 0
  assert int(info.num_rolled_back) == 6 * PASSES
  assert np.isfinite(info.loss) and np.isfinite(info.miou_after)
  np.testing.assert_array_equal(classes, _answer(first.params, frames[0]))


def test_more_than_one_class_is_refused():
  with pytest.raises(UserError, match="segments one class, not 2") as error:
    systems.osvos(tiny_student.make(), TX)
  assert "\n" not in str(error.value)
