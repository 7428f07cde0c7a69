"""An engine's lanes go the way that streams go alone."""

import functools
import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from ojd import distill, updates
from ojd.fleet import engine as engine_lib
from ojd.fleet import lanes, programs
from ojd.systems import jit as jit_lib
from ojd.types import Labels
from tests.reference import scenes, tiny_student

NUM_FRAMES = 12
STUDENT = tiny_student.make()
SYSTEM = jit_lib.jit(
  STUDENT, updates.sgd(0.3), a_thresh=0.8, delta_min=2, delta_max=8, u_max=4
)


@functools.cache
def _alone(seed):
  """Frames and labels of a stream, and what a run alone does with them."""
  frames, labels = scenes.coloured_squares(NUM_FRAMES, seed=seed)
  state = SYSTEM.init(jax.random.key(0), frames[0])
  scan = jax.jit(functools.partial(distill.scan_stream, SYSTEM))
  return frames, labels, state, scan(state, frames, labels)


def _engine(num_devices, num_lanes, predicting=1, learning=1):
  mesh = Mesh(np.array(jax.devices()[:num_devices]), (programs.AXIS,))
  shape = programs.Shape(mesh, num_lanes, predicting, learning)
  frames, _, state, _ = _alone(0)
  return engine_lib.Engine(SYSTEM, shape, state, *frames.shape[1:3])


def _live(engine, lane, seed, told):
  """A stream, as its thread plays it."""
  frames, labels, state, _ = _alone(seed)
  engine.write(lane, state)
  key, found = 0, []
  for t in range(NUM_FRAMES):
    if t == key:
      label = Labels(labels.classes[t], labels.weights[t])
      classes, key, info = engine.learn(lane, frames[t], label)
      found.append((classes, int(info.num_updates)))
    else:
      classes, key = engine.predict(lane, frames[t])
      found.append((classes, 0))
  told[lane] = found, engine.read(lane)


@pytest.mark.parametrize(
  ("devices", "num_lanes", "slots"),
  [(1, 3, (1, 1)), (4, 1, (1, 1)), (4, 2, (2, 2)), (2, 3, (2, 1))],
)
def test_lanes_are_streams_alone(devices, num_lanes, slots):
  engine, told = _engine(devices, num_lanes, *slots), {}
  threads = [
    threading.Thread(target=_live, args=(engine, lane, lane % 3, told))
    for lane in range(engine.num_lanes)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  engine.close()
  assert sorted(told) == list(range(devices * num_lanes))
  assert engine.num_served == NUM_FRAMES * engine.num_lanes
  assert engine.num_turns <= engine.num_served
  for lane, (found, state) in told.items():
    *_, (ended, (classes, infos)) = _alone(lane % 3)
    np.testing.assert_array_equal([c for c, _ in found], classes)
    np.testing.assert_array_equal([n for _, n in found], infos.num_updates)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, state, ended)


def test_a_lane_alone_in_its_slot_has_the_bits_of_a_run_alone():
  engine = _engine(1, 2)
  frames, labels, state, _ = _alone(1)
  learn, predict = jax.jit(SYSTEM.learn), jax.jit(SYSTEM.predict)
  engine.write(1, state)
  label = Labels(labels.classes[0], labels.weights[0])
  engine.learn(1, frames[0], label)
  engine.predict(1, frames[1])
  expected, *_ = learn(state, frames[0], label)
  expected, _ = predict(expected, frames[1])
  jax.tree.map(np.testing.assert_array_equal, engine.read(1), expected)
  # The lane beside it is as it was.
  jax.tree.map(np.testing.assert_array_equal, engine.read(0), _alone(0)[2])
  engine.close()


def test_calls_that_wait_together_share_a_program():
  engine = _engine(1, 4, predicting=4)
  frames = _alone(0)[0]
  is_begun, may_go_on = threading.Event(), threading.Event()
  begin = engine._begin

  def slow_begin(calls):
    is_begun.set()
    may_go_on.wait(10)
    return begin(calls)

  engine._begin = slow_begin
  threads = [
    threading.Thread(target=engine.predict, args=(lane, frames[0]))
    for lane in range(4)
  ]
  threads[0].start()
  is_begun.wait(10)
  for thread in threads[1:]:
    thread.start()
  while len(engine._calls) < 3:
    time.sleep(0.01)
  may_go_on.set()
  for thread in threads:
    thread.join()
  engine.close()
  assert (engine.num_served, engine.num_turns) == (4, 2)


def test_nothing_compiles_once_it_serves(caplog):
  engine = _engine(2, 1)
  frames, labels, state, _ = _alone(0)
  label = Labels(labels.classes[0], labels.weights[0])
  engine.write(0, state)
  engine.read(0), engine.read(1)
  with jax.log_compiles(True):
    for lane in (0, 1):
      engine.learn(lane, frames[0], label)
      engine.predict(lane, frames[1])
      engine.write(lane, engine.read(lane))
    engine.close()
    assert not caplog.records
    jax.jit(lambda x: x + lane)(1)  # which is seen
  assert caplog.records


def test_what_goes_wrong_reaches_all_who_wait_and_all_who_come():
  engine = _engine(1, 2)
  with pytest.raises(Exception, match="called with uint8"):
    engine.predict(0, np.zeros((4, 4, 3), np.uint8))
  with pytest.raises(RuntimeError, match="the students' program ended"):
    engine.predict(1, _alone(0)[0][0])


@pytest.mark.parametrize("num_streams", [1, 3, 4, 9])
def test_every_stream_has_a_lane(num_streams):
  found = lanes.shapes(num_streams, jax.devices())
  assert sum(share for _, share in found) == num_streams
  assert len(found) == min(num_streams, 4)
  for shape, share in found:
    assert share == shape.num_lanes
    assert shape.mesh.size == shape.num_predicting == 1
