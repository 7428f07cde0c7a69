"""Algorithm 1 beside its transcription; constant strides; `norm=key_frame`."""

import jax
import numpy as np
import optax

from ojd import losses, systems, updates
from ojd.models.student import from_linen
from ojd.tasks.segmentation import classify, segmentation
from tests.reference import (
  algorithm1,
  host_loop,
  scenes,
  small_run,
  tiny_student,
)
from tests.reference.compare import equal

STUDENT = tiny_student.make()
NORMED = from_linen(small_run.SmallNet(num_classes=3))
TX = updates.sgd(learning_rate=0.3)


def test_jit_follows_algorithm_1():
  frames, labels = scenes.coloured_squares(40)
  limits = dict(a_thresh=0.7, delta_min=2, delta_max=16, u_max=4)
  params = STUDENT.init(jax.random.key(0), frames[0])
  opt_state = TX.init(params)
  task = segmentation(STUDENT.num_classes)

  @jax.jit
  def step(params, opt_state, frame, label):
    loss = lambda params: losses.weighted_cross_entropy(
      STUDENT.apply(params, frame), label
    )
    steps, opt_state = TX.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, steps), opt_state

  def accuracy(t, u):
    """Trains as the transcription asks: each new u is one more update."""
    nonlocal params, opt_state
    frame, label = frames[t], host_loop.labels_of(labels, t)
    if u > 0:
      params, opt_state = step(params, opt_state, frame, label)
    classes = classify(STUDENT.apply(params, frame))
    return float(task.accuracy(label, classes))

  expected = algorithm1.run(accuracy, num_frames=40, **limits)
  found = host_loop.play(systems.jit(STUDENT, TX, **limits), frames, labels)
  ours = found.keys, found.of("num_updates"), found.of("stride")
  assert ours == tuple(map(list, expected))


def test_fixed_asks_every_stride():
  system = systems.fixed(STUDENT, TX, stride=5)
  found = host_loop.play(system, *scenes.coloured_squares(13))
  assert found.keys == [0, 5, 10]


def _held(norm="key_frame"):
  tx = updates.sgd(learning_rate=0.05)
  return systems.fixed(NORMED, tx, stride=3, u_max=2, norm=norm)


def test_later_frame_is_normed_by_the_key_frame():
  frames, labels = scenes.coloured_squares(2)
  system = _held()
  state, learnt, _ = host_loop.first(system, frames, labels)
  # The frame learnt from is answered as it was left.
  np.testing.assert_array_equal(system.predict(state, frames[0])[1], learnt)
  free, _, _ = host_loop.first(_held("frame"), frames, labels)
  equal(state.params, free.params)
  assert free.norms == ()
  # Other statistics: the frame's own would make up for some of it.
  later = (frames[1] // 3).astype(np.uint8)
  _, norms = NORMED.observe(state.params, frames[0])
  expected = NORMED.apply_held(state.params, norms, later)
  own = NORMED.apply(state.params, later)
  assert np.abs(expected - own).max() > 0.1
  # The norms stay those of the key frame, however many frames pass.
  for _ in range(2):
    state, classes = system.predict(state, later)
    np.testing.assert_array_equal(classes, classify(expected))


def test_before_the_first_key_frame_a_frame_norms_itself():
  frames, _ = scenes.coloured_squares(1)
  answers = []
  for system in (_held("frame"), _held("key_frame")):
    state = host_loop.begin(system, np.zeros_like(frames[0]))
    answers.append(system.predict(state, frames[0])[1])
  np.testing.assert_array_equal(*answers)
