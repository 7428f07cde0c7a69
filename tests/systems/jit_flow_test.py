"""The student and the carried labels, beside numpy and at their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import systems, updates
from ojd.models import optical_flow
from ojd.systems.jit_flow import with_flow
from ojd.tasks.segmentation import classify
from ojd.types import IGNORE, Labels
from tests.reference import host_loop, pictures, scenes, tiny_student
from tests.reference.compare import close, equal

SIZE, NUM_FRAMES = (32, 48), 9
TX = updates.sgd(learning_rate=0.05)
STUDENT = tiny_student.make()
SQUARES, SQUARE_LABELS = scenes.coloured_squares(NUM_FRAMES)


def _shift(frame, previous):
  """A camera that pans by 1.5 pixels a frame."""
  del previous
  flow = np.zeros((*frame.shape[:2], 2), np.float32)
  flow[..., 0] = 1.5
  return flow


def _still(frame, previous):
  """Nothing moves."""
  return 0 * _shift(frame, previous)


def _panned():
  """Frames of a wide picture, and its classes; every second one is between."""
  height, width = 2 * np.array(SIZE)
  frames = pictures.views(NUM_FRAMES, height, width, 0, 3)[:, ::2, ::2]
  classes = (frames[..., 0] > 128).astype(np.uint8)
  return frames, Labels(classes, np.ones(classes.shape, np.float32))


def _base(student=STUDENT):
  constants = dict(a_thresh=0.9, delta_min=4, delta_max=4, u_max=2)
  return systems.jit(student, TX, **constants)


def _system(student=STUDENT, flow_fn=_still):
  return with_flow(student, TX, _base(student), flow_fn)


def _unsure(num_classes=2, logits=0.0):
  """A student that thinks all classes alike, whatever it is taught."""
  return tiny_student.make(num_classes)._replace(
    apply=lambda params, frame: jnp.broadcast_to(
      jnp.float32(logits), (*frame.shape[:2], num_classes)
    )
  )


def test_half_pixels_add_up():
  """1.5 pixels a frame are 3 after two; rounded each time they would be 4."""
  frames, labels = _panned()
  system = _system(_unsure(), _shift)
  answers = host_loop.play(system, frames[:3], labels).answers
  inside, moved = answers[2][:, :-4], labels.classes[0][:, 3:-1]
  np.testing.assert_array_equal(inside, moved)


def test_labels_without_weight_leave_the_pixel_to_the_student():
  frames, labels = _panned()
  labels.weights[0, :, :20] = 0
  labels.classes[0, :, :10] = IGNORE
  system = _system()
  found = host_loop.play(system, frames[:2], labels)
  params = system.serving.params(found.state)
  alone = classify(STUDENT.apply(params, jnp.asarray(frames[1])))
  np.testing.assert_array_equal(found.answers[1][:, :20], alone[:, :20])


def test_key_frames_are_those_of_the_base_and_all_without_labels():
  stream = SQUARES, SQUARE_LABELS
  system = _system(flow_fn=optical_flow.dis("ultrafast"))
  state, (answers, infos) = host_loop.compiled_scan(system, *stream)
  expected, (_, expected_infos) = host_loop.compiled_scan(_base(), *stream)
  ours = system.serving.params(state), infos
  close(ours, (expected.params, expected_infos), 1e-5, 1e-6)
  looped = host_loop.play(system, *stream)
  assert np.mean(answers == looped.answers) > 0.999
  nothing = SQUARE_LABELS._replace(weights=0 * SQUARE_LABELS.weights)
  ours, theirs = (
    host_loop.play(system, SQUARES, nothing) for system in (_system(), _base())
  )
  np.testing.assert_array_equal(ours.answers, theirs.answers)
  equal(system.serving.params(ours.state), theirs.state.params)


def _numpy_belief(logits, label, seen, age, reach):
  """The product of both probabilities, pixel by pixel."""
  num_classes = logits.shape[-1]
  first = np.full((num_classes, num_classes), 1 / (num_classes - 1))
  np.fill_diagonal(first, 9)
  likelihood = seen + first
  likelihood /= likelihood.sum(1, keepdims=True)
  part = min(1, age / max(1, reach))
  likelihood = part * likelihood + (1 - part) * np.eye(num_classes)
  likelihood = np.maximum(likelihood, 1e-3)
  answer = np.empty(label.shape, np.uint8)
  for place in np.ndindex(*label.shape):
    belief = np.exp(logits[place] - logits[place].max())
    if label[place] != IGNORE:
      belief = belief * likelihood[:, label[place]]
    answer[place] = belief.argmax()
  return answer


@pytest.mark.parametrize("jit", [False, True])
def test_belief_is_the_product_of_both(jit):
  rng = np.random.default_rng(1)
  num_classes, size = 3, (8, 10)
  logits = rng.normal(0, 3, (*size, num_classes)).astype(np.float32)
  label = rng.integers(0, num_classes, size).astype(np.uint8)
  label[0] = IGNORE
  seen = rng.integers(0, 40, (num_classes, num_classes)).astype(np.float32)
  system = _system(_unsure(num_classes, logits))
  frame = np.zeros((*size, 3), np.uint8)
  state = system.init(jax.random.key(0), frame)
  predict = jax.jit(system.predict) if jit else system.predict
  for age, reach in ((1, 1), (2, 8), (9, 4)):
    carried = state.carried._replace(
      labels=jnp.asarray(label), age=jnp.asarray(age - 1)
    )
    now = state._replace(
      carried=carried, seen=jnp.asarray(seen), reach=jnp.asarray(reach)
    )
    after, answer = predict(now, frame)
    expected = _numpy_belief(logits, label, seen, age, reach)
    np.testing.assert_array_equal(answer, expected)
    assert int(after.carried.age) == age and int(after.student.t) == 1


def test_errors_of_the_flow_are_counted_on_key_frames():
  frames, labels = _panned()
  found = host_loop.play(_system(_unsure()), frames[:5], labels)
  assert found.keys == [0, 4]
  expected = np.zeros((2, 2))
  np.add.at(expected, (labels.classes[4], labels.classes[0]), 1)
  np.testing.assert_array_equal(found.state.seen, expected)
  assert int(found.state.reach) == 4 and int(found.state.carried.age) == 0


@pytest.mark.parametrize(("name", "stride"), [("", 8), (":plus", 10)])
def test_presets_choose_who_learns(name, stride):
  system = systems.create(f"jit_flow{name}:a_thresh=1", STUDENT, TX)
  found = host_loop.play(system, SQUARES[:1], SQUARE_LABELS)
  assert found.of("stride") == [stride]
