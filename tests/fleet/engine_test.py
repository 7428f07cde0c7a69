"""An engine's slots go the way that streams go alone."""

import subprocess
import sys
import threading
from concurrent import futures

import jax
import numpy as np
import pytest

from ojd.fleet import lanes
from ojd.types import Labels
from tests import binaries
from tests.fleet_slots import SYSTEM, alone, check, make_engine
from tests.waiting import until


@pytest.mark.parametrize(
  ("devices", "num_slots", "at_once"),
  [(1, 3, (1, 1)), (2, 1, (1, 1)), (2, 3, (2, 1))],
)
def test_slots_are_streams_alone(devices, num_slots, at_once):
  check(devices, num_slots, at_once)


def test_slots_are_streams_alone_on_four_devices():
  ended = subprocess.run(
    [sys.executable, "-m", "tests.fleet_slots"],
    cwd=binaries.ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert ended.stdout == "all slots are as alone\n", ended.stderr


def _first_label(seed):
  labels = alone(seed)[1]
  return Labels(labels.classes[0], labels.weights[0])


def test_a_slot_that_is_served_alone_has_the_bits_of_a_run_alone():
  engine = make_engine(1, 2)
  frames, _, state, _ = alone(1)
  label = _first_label(1)
  engine.write(1, state)
  engine.learn(1, frames[0], label)
  engine.predict(1, frames[1])
  expected, *_ = jax.jit(SYSTEM.learn)(state, frames[0], label)
  expected, _ = jax.jit(SYSTEM.predict)(expected, frames[1])
  jax.tree.map(np.testing.assert_array_equal, engine.read(1), expected)
  # The slot beside it is as it was.
  jax.tree.map(np.testing.assert_array_equal, engine.read(0), alone(0)[2])
  engine.close()


def test_calls_that_wait_together_share_a_program():
  engine = make_engine(1, 4, predicting=4)
  frame = alone(0)[0][0]
  is_begun, may_go_on = threading.Event(), threading.Event()
  begin = engine._begin

  def slow_begin(calls):
    is_begun.set()
    may_go_on.wait(10)
    return begin(calls)

  engine._begin = slow_begin
  with futures.ThreadPoolExecutor(4) as pool:
    pool.submit(engine.predict, 0, frame)
    is_begun.wait(10)
    for slot in (1, 2, 3):
      pool.submit(engine.predict, slot, frame)
    until(lambda: len(engine._calls) == 3)
    may_go_on.set()
  engine.close()
  assert (engine.num_served, engine.num_turns) == (4, 2)


def test_nothing_compiles_once_it_serves(caplog):
  engine = make_engine(2, 1)
  frames, _, state, _ = alone(0)
  engine.write(0, state)
  engine.read(0), engine.read(1)
  with jax.log_compiles(True):
    for slot in (0, 1):
      engine.learn(slot, frames[0], _first_label(0))
      engine.predict(slot, frames[1])
      engine.write(slot, engine.read(slot))
    engine.close()
    assert not caplog.records
    jax.jit(lambda x: x + slot)(1)  # which is seen
  assert caplog.records


def test_what_goes_wrong_reaches_all_who_wait_and_all_who_come():
  engine = make_engine(1, 2)
  with pytest.raises(Exception, match="called with uint8"):
    engine.predict(0, np.zeros((4, 4, 3), np.uint8))
  with pytest.raises(RuntimeError, match="the students' program ended"):
    engine.predict(1, alone(0)[0][0])


@pytest.mark.parametrize("num_streams", [1, 3, 4, 9])
def test_every_stream_has_a_slot(num_streams):
  found = lanes.shapes(num_streams, jax.devices())
  assert sum(share for _, share in found) == num_streams
  assert len(found) == min(num_streams, len(jax.devices()))
  for shape, share in found:
    assert share == shape.num_lanes
    assert shape.mesh.size == shape.num_predicting == 1
