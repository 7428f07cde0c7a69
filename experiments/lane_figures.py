"""Figures of many streams as one program: `benchmark --what=streams`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import speed_figures
from ojd import distill, lanes, updates
from ojd.run import measure
from ojd.systems import jit as jit_lib
from ojd.types import Labels

NUM_LANES = (2, 4, 8, 16, 32)
_NUM_FRAMES, _STRIDE, _UPDATES = 16, 8, 2


class _Shifted(NamedTuple):
  """State of a lane whose clock began earlier than the others'."""

  state: distill.State
  shift: jax.Array  # int32


def _shifted(system: distill.System) -> distill.System:
  """The same work for every lane, at other frames."""

  def init(rng_key, frame):
    return _Shifted(system.init(rng_key, frame), jnp.zeros((), jnp.int32))

  def next_key(s):
    return system.next_key(s.state) - s.shift

  def learn(s, frame, labels):
    state, classes, info = system.learn(s.state, frame, labels)
    return _Shifted(state, s.shift), classes, info

  def predict(s, frame):
    state, classes = system.predict(s.state, frame)
    return _Shifted(state, s.shift), classes

  return distill.System(init, next_key, learn, predict)


def streams(num_lanes, size, repeats):
  """A frame of one of many streams, beside a frame of one stream alone."""
  student, *_ = speed_figures.inputs(size)
  constants = dict(stride=_STRIDE, u_max=_UPDATES, u_min=_UPDATES)
  system = _shifted(
    jit_lib.fixed(student, updates.sgd(learning_rate=0.01), **constants)
  )
  run_many = _runner(system, num_lanes, size)
  alone = _runner(system, 1, size)
  found = measure.compare(
    f"streams_{num_lanes}_vs_1",
    run_many,
    alone,
    repeats=max(2, repeats // 2),
    note=(
      f"a frame, {_UPDATES} updates every {_STRIDE}th, {size[0]}x{size[1]}, "
      f"{speed_figures.precision()}"
    ),
  )
  return _per_frame(found, num_lanes)


def _runner(system, num_lanes, size):
  """A call without arguments: some frames of every lane."""
  devices = jax.devices()
  while num_lanes % len(devices):
    devices = devices[:-1]
  keys = jax.random.split(jax.random.key(0), num_lanes)
  inputs = _inputs(num_lanes, size)
  init = jax.jit(functools.partial(lanes.init, system))
  states = init(keys, inputs[0][0])
  shift = jnp.arange(num_lanes, dtype=jnp.int32) % _STRIDE
  inner = states.state._replace(t=states.state.t + shift)
  states = _Shifted(inner, shift)
  bucket = None if jax.default_backend() == "cpu" else min(num_lanes, 4)
  scan = lanes.scan_over(devices, system, bucket=bucket)
  return lambda: scan(states, *inputs, 0)


def _inputs(num_lanes, size):
  """Frames and labels, of noise: every update is made, whatever they show."""
  rng = np.random.default_rng(0)
  shape = (_NUM_FRAMES, num_lanes, *size)
  frames = rng.integers(0, 256, (*shape, 3), np.uint8)
  classes = rng.integers(0, speed_figures.NUM_CLASSES, shape, np.uint8)
  return jax.device_put((frames, Labels(classes, np.ones(shape, np.float32))))


def _per_frame(found, num_lanes):
  """From whole runs to frames."""
  ms = found.ms / (_NUM_FRAMES * num_lanes)
  opponent_ms = found.opponent_ms / _NUM_FRAMES
  note = f"{1e3 / ms:.0f} frames a second; {found.note}"
  return found._replace(
    ratio=round(found.ratio / num_lanes, 4),
    ms=round(ms, 3),
    opponent_ms=round(opponent_ms, 3),
    note=note,
  )


ALL = [functools.partial(streams, n) for n in NUM_LANES]
