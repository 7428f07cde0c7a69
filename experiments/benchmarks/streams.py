"""Many streams on a fleet's engines: streams that wait together run together.

streams_S_vs_1
    a frame of one of S streams, over a frame of one alone (at most 0.67 on two
    cores, 0.125 on a GPU, at 256x448)
"""

import concurrent.futures
import contextlib
import functools

import jax
import numpy as np

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case
from ojd import systems, updates
from ojd.fleet import placement
from ojd.fleet.engine import Engine
from ojd.types import Labels

NUM_STREAMS = (2, 4, 8, 16, 32)
_NUM_FRAMES, _STRIDE, _UPDATES = 16, 8, 2


def many(num_streams, at):
  """A frame of one of many streams, beside a frame of one stream alone."""
  student, *_ = students.inputs(at)
  constants = dict(stride=_STRIDE, u_max=_UPDATES, u_min=_UPDATES)
  system = systems.fixed(student, updates.sgd(learning_rate=0.01), **constants)
  with contextlib.ExitStack() as stack:
    found = measure.compare(
      f"streams_{num_streams}_vs_1",
      _player(stack, system, num_streams, at.size),
      _player(stack, system, 1, at.size),
      at=at,
      repeats=max(2, at.repeats // 2),
      note=f"a frame, {_UPDATES} updates every {_STRIDE}th, {at.precision}",
    )
  # From whole runs to frames.
  ms = found.ms / (_NUM_FRAMES * num_streams)
  return found._replace(
    ratio=round(found.ratio / num_streams, 4),
    ms=round(ms, 3),
    opponent_ms=round(found.opponent_ms / _NUM_FRAMES, 3),
    note=f"{1e3 / ms:.0f} frames a second; {found.note}",
  )


def _player(stack, system, num_streams, size):
  """A call without arguments: some frames of every stream, each in a thread."""
  rng = np.random.default_rng(0)
  # Of noise: every update is made, whatever a frame shows.
  frame = rng.integers(0, 256, (*size, 3), np.uint8)
  classes = rng.integers(0, students.NUM_CLASSES, size, np.uint8)
  labels = Labels(classes, np.ones(size, np.float32))
  state = jax.jit(system.init)(jax.random.key(0), frame)
  slots = []
  for shape, share in placement.shapes(num_streams, jax.devices()):
    engine = Engine(system, shape, state, *size)
    stack.callback(engine.close)
    slots += [(engine, slot) for slot in range(share)]
  pool = concurrent.futures.ThreadPoolExecutor(num_streams)
  stack.callback(pool.shutdown)

  def play(index):
    engine, slot = slots[index]
    for t in range(_NUM_FRAMES):
      if (t + index) % _STRIDE:
        engine.predict(slot, frame)
      else:
        engine.learn(slot, frame, labels)
    return True

  return lambda: all(pool.map(play, range(num_streams)))


CASES = [
  Case(functools.partial(many, n), measure.MIDDLE, is_long=bool(i))
  for i, n in enumerate(NUM_STREAMS)
]
