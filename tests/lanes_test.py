"""Lanes: every stream goes the way it goes alone, and waits for no other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd import distill, lanes, updates
from ojd.systems import jit as jit_lib
from ojd.types import Labels
from tests.reference import scenes, tiny_student

STUDENT = tiny_student.make()
NUM_LANES, NUM_FRAMES = 3, 14


def _system(**constants):
  defaults = dict(a_thresh=0.8, delta_min=2, delta_max=8, u_max=4)
  return jit_lib.jit(STUDENT, updates.sgd(0.3), **(defaults | constants))


def _streams():
  """Frames [T, S, ...] and labels that make the lanes' key frames differ."""
  made = [scenes.coloured_squares(NUM_FRAMES, seed=s) for s in range(NUM_LANES)]
  frames, labels = zip(*made, strict=True)
  frames = np.stack(frames, 1)
  # The last lane is told that nothing is there: it is right at once.
  classes = np.stack([x.classes for x in labels], 1)
  classes[:, -1] = 0
  weights = np.stack([x.weights for x in labels], 1)
  return frames, Labels(classes, weights)


def _start(system, frames):
  keys = jax.random.split(jax.random.key(0), NUM_LANES)
  return lanes.init(system, keys, frames[0])


@pytest.mark.parametrize("bucket", [1, 2, 3])
def test_lanes_are_streams_alone(bucket):
  system = _system()
  frames, labels = _streams()
  states = _start(system, frames)
  ended, (classes, infos) = jax.jit(
    lambda states: lanes.scan(system, states, frames, labels, bucket=bucket)
  )(states)
  keys = np.asarray(infos.is_key)
  assert len({tuple(lane) for lane in keys.T}) > 1, "all are due together"
  for i in range(NUM_LANES):
    alone, (expected, told) = jax.jit(
      lambda state, i=i: distill.scan_stream(
        system,
        state,
        frames[:, i],
        Labels(labels.classes[:, i], labels.weights[:, i]),
      )
    )(jax.tree.map(lambda x, i=i: x[i], states))
    np.testing.assert_array_equal(keys[:, i], told.is_key)
    np.testing.assert_array_equal(infos.num_updates[:, i], told.num_updates)
    np.testing.assert_allclose(infos.loss[:, i], told.loss, atol=1e-5)
    np.testing.assert_array_equal(classes[:, i], expected)
    jax.tree.map(
      lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5),
      ended,
      alone,
    )


def test_lane_that_is_not_due_is_not_taught():
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
    lambda states: lanes.scan(spied, states, frames, labels)
  )(states)
  jax.effects_barrier()
  assert len(called) == int(jnp.sum(infos.is_key)) < NUM_LANES * NUM_FRAMES


def test_nobody_due_costs_no_turn():
  system = jit_lib.frozen(STUDENT)
  frames, labels = _streams()
  states = _start(system, frames)
  ended, classes, infos = lanes.step(
    system, states, frames[0], Labels(labels.classes[0], labels.weights[0]), 0
  )
  assert not infos.is_key.any() and classes.shape == (NUM_LANES, 16, 20)
  jax.tree.map(np.testing.assert_array_equal, ended.params, states.params)
