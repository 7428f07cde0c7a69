"""An engine's lanes go the way that streams go alone."""

import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from ojd.fleet import lanes
from ojd.types import Labels
from tests import binaries
from tests.fleet_lanes import SYSTEM, alone, check, make_engine


@pytest.mark.parametrize(
  ("devices", "num_lanes", "slots"),
  [(1, 3, (1, 1)), (2, 1, (1, 1)), (2, 3, (2, 1))],
)
def test_lanes_are_streams_alone(devices, num_lanes, slots):
  check(devices, num_lanes, slots)


def test_lanes_are_streams_alone_on_four_devices():
  ended = subprocess.run(
    [sys.executable, "-m", "tests.fleet_lanes"],
    cwd=binaries.ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert ended.stdout == "all lanes are as alone\n", ended.stderr


def test_a_lane_alone_in_its_slot_has_the_bits_of_a_runalone():
  engine = make_engine(1, 2)
  frames, labels, state, _ = alone(1)
  learn, predict = jax.jit(SYSTEM.learn), jax.jit(SYSTEM.predict)
  engine.write(1, state)
  label = Labels(labels.classes[0], labels.weights[0])
  engine.learn(1, frames[0], label)
  engine.predict(1, frames[1])
  expected, *_ = learn(state, frames[0], label)
  expected, _ = predict(expected, frames[1])
  jax.tree.map(np.testing.assert_array_equal, engine.read(1), expected)
  # The lane beside it is as it was.
  jax.tree.map(np.testing.assert_array_equal, engine.read(0), alone(0)[2])
  engine.close()


def test_calls_that_wait_together_share_a_program():
  engine = make_engine(1, 4, predicting=4)
  frames = alone(0)[0]
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
  engine = make_engine(2, 1)
  frames, labels, state, _ = alone(0)
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
  engine = make_engine(1, 2)
  with pytest.raises(Exception, match="called with uint8"):
    engine.predict(0, np.zeros((4, 4, 3), np.uint8))
  with pytest.raises(RuntimeError, match="the students' program ended"):
    engine.predict(1, alone(0)[0][0])


@pytest.mark.parametrize("num_streams", [1, 3, 4, 9])
def test_every_stream_has_a_lane(num_streams):
  found = lanes.shapes(num_streams, jax.devices())
  assert sum(share for _, share in found) == num_streams
  assert len(found) == min(num_streams, len(jax.devices()))
  for shape, share in found:
    assert share == shape.num_lanes
    assert shape.mesh.size == shape.num_predicting == 1
