"""The teacher alone and its latest answer, beside lists made by hand."""

import jax
import numpy as np
import pytest

from ojd import distill, metrics, systems
from ojd.types import IGNORE, Labels
from tests.reference import scenes, tiny_student

STUDENT = tiny_student.make()  # of which the classes are counted
NUM_FRAMES = 10


def _host_loop(system, frames, labels):
  """As the runner does it: states are consumed, next_key follows learn."""
  learn = jax.jit(system.learn, donate_argnums=0)
  predict = jax.jit(system.predict, donate_argnums=0)
  state = jax.jit(system.init)(jax.random.key(0), frames[0])
  answers, infos = [], {}
  next_key = int(system.next_key(state))
  for t, frame in enumerate(frames):
    if t == next_key:
      here = Labels(labels.classes[t], labels.weights[t])
      state, classes, infos[t] = learn(state, frame, here)
      next_key = int(system.next_key(state))
    else:
      state, classes = predict(state, frame)
    answers.append(np.asarray(classes))
  return np.stack(answers), infos


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_answer_of_the_latest_key_frame_is_kept(stride):
  frames, labels = scenes.coloured_squares(NUM_FRAMES)
  system = systems.copy_last(STUDENT, stride=stride)
  answers, infos = _host_loop(system, frames, labels)
  for t in range(NUM_FRAMES):
    key = t - t % stride
    np.testing.assert_array_equal(answers[t], labels.classes[key])
  assert list(infos) == list(range(0, NUM_FRAMES, stride))
  for t, info in infos.items():
    before = labels.classes[t - stride] if t else np.zeros((16, 20), np.uint8)
    confusion = metrics.confusion_matrix(labels.classes[t], before, 3)
    np.testing.assert_allclose(
      info.miou_before, metrics.run_miou(confusion), rtol=1e-6
    )
    assert info.miou_after == 1 and info.num_updates == 0
    assert info.is_key and info.stride == stride


def test_teacher_is_asked_on_every_frame():
  frames, labels = scenes.coloured_squares(NUM_FRAMES)
  answers, infos = _host_loop(systems.teacher(STUDENT), frames, labels)
  np.testing.assert_array_equal(answers, labels.classes)
  assert list(infos) == list(range(NUM_FRAMES))


def test_ignored_pixels_are_answered_with_a_class():
  frames, labels = scenes.coloured_squares(2)
  labels.classes[0, :3], labels.weights[0, :3] = IGNORE, 0
  answers, _ = _host_loop(systems.copy_last(STUDENT), frames, labels)
  expected = labels.classes[0].copy()
  expected[:3] = 0
  for answer in answers:
    np.testing.assert_array_equal(answer, expected)


def test_scan_and_vmap_equal_the_host_loop():
  frames, labels = scenes.coloured_squares(NUM_FRAMES)

  def one(stride):
    system = systems.copy_last(STUDENT, stride=stride)
    state = system.init(jax.random.key(0), frames[0])
    return distill.scan_stream(system, state, frames, labels, axis_name="a")[1]

  strides = np.array([2, 5])
  together, infos = jax.jit(jax.vmap(one, axis_name="a"))(strides)
  for i, stride in enumerate(strides):
    system = systems.copy_last(STUDENT, stride=int(stride))
    alone, keys = _host_loop(system, frames, labels)
    np.testing.assert_array_equal(together[i], alone)
    assert np.flatnonzero(infos.is_key[i]).tolist() == list(keys)
