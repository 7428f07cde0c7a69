"""Slots of an engine beside streams alone; as a program, on four devices.

    python -m tests.fleet_slots

More devices than cores divide sums otherwise: other tests are not to see them.
"""

import functools
from concurrent import futures

import jax
import numpy as np
from jax.sharding import Mesh

from ojd import distill
from ojd.fleet import engine as engine_lib
from ojd.fleet import programs
from ojd.types import Labels
from tests.reference import scenes
from tests.reference.loop_run import SYSTEM

NUM_FRAMES = 12


@functools.cache
def alone(seed):
  """Frames and labels of a stream, and what a run alone does with them."""
  frames, labels = scenes.coloured_squares(NUM_FRAMES, seed=seed)
  state = SYSTEM.init(jax.random.key(0), frames[0])
  scan = jax.jit(functools.partial(distill.scan_stream, SYSTEM))
  return frames, labels, state, scan(state, frames, labels)


def make_engine(num_devices, num_slots, predicting=1, learning=1):
  mesh = Mesh(np.array(jax.devices()[:num_devices]), (programs.AXIS,))
  shape = programs.Shape(mesh, num_slots, predicting, learning)
  frames, _, state, _ = alone(0)
  return engine_lib.Engine(SYSTEM, shape, state, *frames.shape[1:3])


def _live(engine, slot):
  """Plays a stream: its answers, updates and last state."""
  frames, labels, state, _ = alone(slot % 3)
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


def check(devices: int, num_slots: int, at_once: tuple[int, int]) -> None:
  """Asserts that every slot goes the way that its stream goes alone.

  Args:
    devices: how many.
    num_slots: of each.
    at_once: how many of them predict, and learn, in one program.
  """
  engine = make_engine(devices, num_slots, *at_once)
  num = devices * num_slots
  with futures.ThreadPoolExecutor(num) as pool:
    told = list(pool.map(functools.partial(_live, engine), range(num)))
  engine.close()
  assert engine.num_served == NUM_FRAMES * num >= engine.num_turns
  for slot, (classes, num_updates, state) in enumerate(told):
    *_, (ended, expected) = alone(slot % 3)
    np.testing.assert_array_equal(classes, expected[0])
    np.testing.assert_array_equal(num_updates, expected[1].num_updates)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, state, ended)


def main() -> None:
  """Several shapes over four devices."""
  jax.config.update("jax_num_cpu_devices", 4)
  assert len(jax.devices()) >= 4
  for num_slots, at_once in ((1, (1, 1)), (2, (2, 2)), (3, (2, 1))):
    check(4, num_slots, at_once)
  print("all slots are as alone")


if __name__ == "__main__":
  main()
