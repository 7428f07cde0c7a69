"""Lanes: every stream goes the way it goes alone, and waits for no other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, lanes, updates
from ojd.systems import jit as jit_lib
from ojd.types import Labels
from tests.reference import scenes, tiny_student

STUDENT = tiny_student.make()
NUM_FRAMES = 14


def _system(**constants):
  defaults = dict(a_thresh=0.8, delta_min=2, delta_max=8, u_max=4)
  return jit_lib.jit(
    STUDENT, updates.sgd(learning_rate=0.3), **(defaults | constants)
  )


def _streams(num_lanes=3):
  """Frames [T, S, ...] and labels that make the lanes' key frames differ."""
  made = [scenes.coloured_squares(NUM_FRAMES, seed=s) for s in range(num_lanes)]
  frames, labels = zip(*made, strict=True)
  frames = np.stack(frames, 1)
  # The last lane is told that nothing is there: it is right at once.
  classes = np.stack([x.classes for x in labels], 1)
  classes[:, -1] = 0
  weights = np.stack([x.weights for x in labels], 1)
  return frames, Labels(classes, weights)


def _start(system, frames):
  keys = jax.random.split(jax.random.key(0), frames.shape[1])
  return lanes.init(system, keys, frames[0])


def _together(system, states, frames, labels, bucket):
  return jax.jit(
    lambda states: lanes.scan(system, states, frames, labels, bucket=bucket)
  )(states)


def _spread(system, states, frames, labels, bucket):
  scan = lanes.scan_over(jax.devices()[:2], system, bucket=bucket)
  return scan(states, frames, labels, 0)


@pytest.mark.parametrize(
  ("num_lanes", "run", "bucket"),
  [
    *((n, _together, None) for n in (1, 4)),
    *((4, _together, bucket) for bucket in (1, 2, 3)),
    *((n, _spread, None) for n in (2, 4)),
  ],
)
def test_lanes_are_streams_alone(num_lanes, run, bucket):
  system = _system()
  frames, labels = _streams(num_lanes)
  states = _start(system, frames)
  ended, (classes, infos) = run(system, states, frames, labels, bucket)
  keys = np.asarray(infos.is_key)
  are_different = len({tuple(lane) for lane in keys.T}) > 1
  assert are_different or num_lanes == 1, "all are due together"
  scan = jax.jit(functools.partial(distill.scan_stream, system))
  for i in range(num_lanes):
    alone, (expected, told) = scan(
      jax.tree.map(lambda x, i=i: x[i], states),
      frames[:, i],
      Labels(labels.classes[:, i], labels.weights[:, i]),
    )
    np.testing.assert_array_equal(keys[:, i], told.is_key)
    np.testing.assert_array_equal(infos.num_updates[:, i], told.num_updates)
    np.testing.assert_allclose(infos.loss[:, i], told.loss, atol=1e-5)
    np.testing.assert_array_equal(classes[:, i], expected)
    jax.tree.map(
      lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5),
      ended,
      alone,
    )


@pytest.mark.parametrize("bucket", [None, 1])
def test_lane_that_is_not_due_is_not_taught(bucket):
  """Learning is called for the due lanes only: counted, not assumed."""
  called = []
  system = _system()

  def counted(state, frame, labels):
    jax.debug.callback(lambda: called.append(None))
    return system.learn(state, frame, labels)

  frames, labels = _streams()
  states = _start(system, frames)
  spied = system._replace(learn=counted)
  _, (_, infos) = jax.jit(
    lambda states: lanes.scan(spied, states, frames, labels, bucket=bucket)
  )(states)
  jax.effects_barrier()
  assert (
    len(called) == int(jnp.sum(infos.is_key)) < frames.shape[1] * NUM_FRAMES
  )


def test_nobody_due_costs_no_turn():
  system = jit_lib.frozen(STUDENT)
  frames, labels = _streams()
  states = _start(system, frames)
  ended, classes, infos = lanes.step(
    system, states, frames[0], Labels(labels.classes[0], labels.weights[0]), 0
  )
  assert not infos.is_key.any() and classes.shape == (3, 16, 20)
  jax.tree.map(np.testing.assert_array_equal, ended.params, states.params)
