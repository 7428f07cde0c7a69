"""An engine's slots go the way that streams go alone."""

import functools
import threading
from concurrent import futures

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from ojd import distill
from ojd.fleet import engine as engine_lib
from ojd.fleet import placement, programs
from ojd.types import Labels
from tests.reference import scenes
from tests.reference.loop_run import SYSTEM
from tests.waiting import until

NUM_FRAMES = 12


@functools.cache
def _alone(seed):
  """Frames and labels of a stream, and what a run alone does with them."""
  frames, labels = scenes.coloured_squares(NUM_FRAMES, seed=seed)
  state = SYSTEM.init(jax.random.key(0), frames[0])
  scan = jax.jit(functools.partial(distill.scan_stream, SYSTEM))
  return frames, labels, state, scan(state, frames, labels)


def _make_engine(num_devices, num_slots, predicting=1, learning=1):
  mesh = Mesh(np.array(jax.devices()[:num_devices]), (programs.AXIS,))
  shape = programs.Shape(mesh, num_slots, predicting, learning)
  frames, _, state, _ = _alone(0)
  return engine_lib.Engine(SYSTEM, shape, state, *frames.shape[1:3])


def _live(engine, slot):
  """Plays a stream: its answers, updates and last state."""
  frames, labels, state, _ = _alone(slot % 3)
  engine.write(slot, state)
  key, found = 0, []
  for t in range(NUM_FRAMES):
    if t == key:
      label = Labels(labels.classes[t], labels.weights[t])
      classes, key, info = engine.learn(slot, frames[t], label)
      found.append((classes, int(info.num_updates)))
    else:
      classes, key = engine.predict(slot, frames[t])
      found.append((classes, 0))
  return *zip(*found, strict=True), engine.read(slot)


@pytest.mark.parametrize(
  ("devices", "num_slots", "at_once"),
  [(1, 3, (1, 1)), (2, 1, (1, 1)), (2, 2, (2, 2)), (2, 3, (2, 1))],
)
def test_slots_are_streams_alone(devices, num_slots, at_once):
  """`at_once`: how many of a device's predict, and learn, in one program."""
  engine = _make_engine(devices, num_slots, *at_once)
  num = devices * num_slots
  with futures.ThreadPoolExecutor(num) as pool:
    played = list(pool.map(functools.partial(_live, engine), range(num)))
  engine.close()
  assert engine.num_requests == NUM_FRAMES * num >= engine.num_batches
  for slot, (classes, num_updates, state) in enumerate(played):
    *_, (ended, expected) = _alone(slot % 3)
    np.testing.assert_array_equal(classes, expected[0])
    np.testing.assert_array_equal(num_updates, expected[1].num_updates)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, state, ended)


def _first_label(seed):
  labels = _alone(seed)[1]
  return Labels(labels.classes[0], labels.weights[0])


def test_a_slot_that_is_served_alone_has_the_bits_of_a_run_alone():
  engine = _make_engine(1, 2)
  frames, _, state, _ = _alone(1)
  label = _first_label(1)
  engine.write(1, state)
  engine.learn(1, frames[0], label)
  engine.predict(1, frames[1])
  expected, *_ = jax.jit(SYSTEM.learn)(state, frames[0], label)
  expected, _ = jax.jit(SYSTEM.predict)(expected, frames[1])
  jax.tree.map(np.testing.assert_array_equal, engine.read(1), expected)
  # The slot beside it is as it was.
  jax.tree.map(np.testing.assert_array_equal, engine.read(0), _alone(0)[2])
  engine.close()


def test_calls_that_wait_together_share_a_program():
  engine = _make_engine(1, 4, predicting=4)
  frame = _alone(0)[0][0]
  is_begun, may_go_on = threading.Event(), threading.Event()
  begin = engine._start

  def slow_begin(calls):
    is_begun.set()
    may_go_on.wait(10)
    return begin(calls)

  engine._start = slow_begin
  with futures.ThreadPoolExecutor(4) as pool:
    pool.submit(engine.predict, 0, frame)
    is_begun.wait(10)
    for slot in (1, 2, 3):
      pool.submit(engine.predict, slot, frame)
    until(lambda: len(engine._waiting) == 3)
    may_go_on.set()
  engine.close()
  assert (engine.num_requests, engine.num_batches) == (4, 2)


def test_nothing_compiles_once_it_serves(caplog):
  engine = _make_engine(2, 1)
  frames, _, state, _ = _alone(0)
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
  engine = _make_engine(1, 2)
  with pytest.raises(Exception, match="called with uint8"):
    engine.predict(0, np.zeros((4, 4, 3), np.uint8))
  with pytest.raises(RuntimeError, match="the engine has ended"):
    engine.predict(1, _alone(0)[0][0])


@pytest.mark.parametrize("num_streams", [1, 3, 4, 9])
def test_every_stream_has_a_slot(num_streams):
  found = placement.shapes(num_streams, jax.devices())
  assert sum(share for _, share in found) == num_streams
  assert len(found) == min(num_streams, len(jax.devices()))
  for shape, share in found:
    assert share == shape.num_slots
    assert shape.mesh.size == shape.predict_rows == 1
