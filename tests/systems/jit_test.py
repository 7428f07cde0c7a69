"""Algorithm 1 beside its transcription; `norm=key_frame`; `jit_plus`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
from tests.reference.compare import close, equal

STUDENT = tiny_student.make()
NORMED = from_linen(small_run.SmallNet(num_classes=3))
TX = updates.sgd(learning_rate=0.3)
CONSTANTS = dict(a_thresh=0.7, delta_min=2, delta_max=16, u_max=4)
# What makes `jit` of `jit_plus`.
PLAIN = dict(
  pre_update_schedule=False, target_margin=0.0, step_scale=0.0, stride_scale=1.0
)


def test_jit_follows_algorithm_1():
  frames, labels = scenes.coloured_squares(40)
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

  expected = algorithm1.run(accuracy, num_frames=40, **CONSTANTS)
  found = host_loop.play(_jit(), frames, labels)
  ours = found.keys, found.of("num_updates"), found.of("stride")
  assert ours == tuple(map(list, expected))


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
  # Before the first key frame a frame norms itself.
  begun = (host_loop.begin(x, 0 * frames[0]) for x in (system, _held("frame")))
  one, other = begun
  equal(
    system.predict(one, frames[0])[1],
    _held("frame").predict(other, frames[0])[1],
  )
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


def _jit(tx=TX, **options):
  return systems.jit(STUDENT, tx, **CONSTANTS | options)


def _plus(tx=TX, **options):
  return systems.jit_plus(STUDENT, tx, **CONSTANTS | PLAIN | options)


def _first(system):
  """-> the state after one key frame, and its info."""
  state, _, info = host_loop.first(system, *scenes.coloured_squares(1))
  return state, info


@pytest.mark.parametrize("jit", [False, True])
def test_without_extras_it_is_jit(jit):
  stream = scenes.coloured_squares(40 if jit else 6)
  ours, theirs = (
    host_loop.play(system, *stream, jit=jit) for system in (_plus(), _jit())
  )
  close(tuple(ours), tuple(theirs), 1e-6, 0)


def test_stride_follows_the_accuracy_before_the_updates():
  """A student that learns each frame by heart still asks again soon."""
  for is_before, stride in ((False, 4), (True, 2)):
    system = _plus(pre_update_schedule=is_before, a_thresh=0.5, u_max=30)
    state, info = _first(system)
    assert info.miou_before < 0.5 < info.miou_after
    assert info.stride == state.schedule.stride == stride
    # Of a frame that it knows already, both think well.
    (frame,), labels = scenes.coloured_squares(1)
    _, _, info = system.learn(state, frame, host_loop.labels_of(labels, 0))
    assert info.num_updates == 0 and info.stride == 2 * stride


@pytest.mark.parametrize(
  ("delta_min", "factor", "least"),
  [(2, 1.5, 3), (8, 1.5, 12), (16, 1.5, 24), (8, 1.25, 10)],
)
def test_stride_scale_is_of_the_least_stride_and_of_the_most_updates(
  delta_min, factor, least
):
  system = _plus(
    updates.sgd(learning_rate=1e-4),
    **dict(stride_scale=factor, delta_min=delta_min, u_max=8, a_thresh=1.0),
  )
  _, info = _first(system)
  assert int(info.stride) == least
  assert int(info.num_updates) == round(8 * factor)
  begin = host_loop.begin(system, np.zeros((16, 20, 3), np.uint8))
  assert int(system.next_key(begin._replace(t=jnp.asarray(1)))) == least


def test_target_margin_goes_on_after_the_threshold():
  """Half the way from 0.6 to 1 is 0.8."""
  for margin, threshold in ((0.0, 0.6), (0.5, 0.8)):
    _, info = _first(_plus(target_margin=margin, a_thresh=0.6, u_max=60))
    _, expected = _first(_jit(a_thresh=threshold, u_max=60))
    assert info.num_updates == expected.num_updates
    assert info.miou_after >= threshold


def test_step_scale_lengthens_every_step_by_what_was_wrong_at_first():
  sgd = lambda rate: updates.sgd(learning_rate=rate)
  state, info = _first(_plus(sgd(0.1), step_scale=4.0, a_thresh=1.0))
  assert int(info.num_updates) == 4
  assert 0 < info.miou_before < info.miou_after
  rate = 0.1 * (1 + 4 * (1 - float(info.miou_before)))
  expected, _ = _first(_jit(sgd(rate), a_thresh=1))
  close(state.params, expected.params)
