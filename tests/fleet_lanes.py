"""Lanes of an engine beside streams alone; as a program, on four devices.

    python -m tests.fleet_lanes

More devices than cores divide sums otherwise: other tests are not to see them.
"""

import functools
import threading

import jax
import numpy as np
from jax.sharding import Mesh

from ojd import distill, systems, updates
from ojd.fleet import engine as engine_lib
from ojd.fleet import programs
from ojd.types import Labels
from tests.reference import scenes, tiny_student

NUM_FRAMES = 12
STUDENT = tiny_student.make()
SYSTEM = systems.jit(
  STUDENT,
  updates.sgd(learning_rate=0.3),
  a_thresh=0.8,
  delta_min=2,
  delta_max=8,
  u_max=4,
)


@functools.cache
def alone(seed):
  """Frames and labels of a stream, and what a run alone does with them."""
  frames, labels = scenes.coloured_squares(NUM_FRAMES, seed=seed)
  state = SYSTEM.init(jax.random.key(0), frames[0])
  scan = jax.jit(functools.partial(distill.scan_stream, SYSTEM))
  return frames, labels, state, scan(state, frames, labels)


def make_engine(num_devices, num_lanes, predicting=1, learning=1):
  mesh = Mesh(np.array(jax.devices()[:num_devices]), (programs.AXIS,))
  shape = programs.Shape(mesh, num_lanes, predicting, learning)
  frames, _, state, _ = alone(0)
  return engine_lib.Engine(SYSTEM, shape, state, *frames.shape[1:3])


def _live(engine, lane, seed, told):
  """A stream, as its thread plays it."""
  frames, labels, state, _ = alone(seed)
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


def check(devices: int, num_lanes: int, slots: tuple[int, int]) -> None:
  """Asserts that every lane goes the way that its stream goes alone.

  Args:
    devices: how many.
    num_lanes: of each.
    slots: of each, to predict and to learn.
  """
  engine, told = make_engine(devices, num_lanes, *slots), {}
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
    *_, (ended, (classes, infos)) = alone(lane % 3)
    np.testing.assert_array_equal([c for c, _ in found], classes)
    np.testing.assert_array_equal([n for _, n in found], infos.num_updates)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, state, ended)


def main() -> None:
  """Several shapes over four devices."""
  jax.config.update("jax_num_cpu_devices", 4)
  assert len(jax.devices()) >= 4
  for num_lanes, slots in ((1, (1, 1)), (2, (2, 2)), (3, (2, 1))):
    check(4, num_lanes, slots)
  print("all lanes are as alone")


if __name__ == "__main__":
  main()
