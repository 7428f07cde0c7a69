"""Many streams as one program: all predict, only those that are due learn.

streams_S_vs_1
    a frame of one of S streams, over a frame of one alone (at most 0.67 on two
    cores, 0.125 on a GPU, at 256x448)

Every array of the states, frames and labels has the streams as its first axis,
S. Streams do not see each other: each learns as it would alone.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case
from ojd import systems, updates
from ojd.distill import State, System
from ojd.types import Frame, Labels, StepInfo

NUM_STREAMS = (2, 4, 8, 16, 32)
_NUM_FRAMES, _STRIDE, _UPDATES = 16, 8, 2


def many(num_streams, at):
  """A frame of one of many streams, beside a frame of one stream alone."""
  student, *_ = students.inputs(at)
  constants = dict(stride=_STRIDE, u_max=_UPDATES, u_min=_UPDATES)
  system = _shifted(
    systems.fixed(student, updates.sgd(learning_rate=0.01), **constants)
  )
  found = measure.compare(
    f"streams_{num_streams}_vs_1",
    _runner(system, num_streams, at.size),
    _runner(system, 1, at.size),
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


class _Shifted(NamedTuple):
  """State of a stream whose clock began earlier than the others'."""

  state: State
  shift: jax.Array  # int32


def _shifted(system: System) -> System:
  """The same work for every stream, at other frames."""

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

  return System(init, next_key, learn, predict)


def _runner(system, num_streams, size):
  """A call without arguments: some frames of every stream."""
  devices = jax.devices()
  while num_streams % len(devices):
    devices = devices[:-1]
  keys = jax.random.split(jax.random.key(0), num_streams)
  inputs = _inputs(num_streams, size)
  states = jax.jit(functools.partial(init, system))(keys, inputs[0][0])
  shift = jnp.arange(num_streams, dtype=jnp.int32) % _STRIDE
  inner = states.state._replace(t=states.state.t + shift)
  states = _Shifted(inner, shift)
  bucket = None if jax.default_backend() == "cpu" else min(num_streams, 4)
  run = scan_over(devices, system, bucket=bucket)
  return lambda: run(states, *inputs, 0)


def _inputs(num_streams, size):
  """Frames and labels, of noise: every update is made, whatever they show."""
  rng = np.random.default_rng(0)
  shape = (_NUM_FRAMES, num_streams, *size)
  frames = rng.integers(0, 256, (*shape, 3), np.uint8)
  classes = rng.integers(0, students.NUM_CLASSES, shape, np.uint8)
  return jax.device_put((frames, Labels(classes, np.ones(shape, np.float32))))


def init(system: System, rng_keys: jax.Array, frames: Frame) -> State:
  """The first states; keys [S], consumed, and frames [S, H, W, 3]."""
  return jax.vmap(system.init)(rng_keys, frames)


def step(
  system: System,
  states: State,
  frames: Frame,
  labels: Labels,
  t: ArrayLike,
  *,
  bucket: int | None = None,
) -> tuple[State, jax.Array, StepInfo]:
  """Frame t of every stream.

  Args:
    system: any.
    states: of S streams.
    frames: [S, H, W, 3] uint8.
    labels: classes and weights, [S, H, W] each; read where a stream is due.
    t: which frame this is, of all streams.
    bucket: None: a stream after the other, for where many are no faster at
      once, as on a CPU, whose cache holds one. Else all predict at once, and so
      many of those that are due learn at once: the slowest of them is waited
      for.

  Returns:
    The states, classes [S, H, W], and infos, fields [S]; 0 where not due.
  """
  inputs = jax.tree.map(jnp.asarray, (states, frames, labels))
  if bucket is not None:
    return _step_at_once(system, *inputs, t, bucket)
  alone = functools.partial(_step_alone, system, t)
  if len(frames) > 1:
    return lax.map(lambda stream: alone(*stream), inputs)
  # A loop of one turn XLA's CPU back end makes something half as fast.
  one = alone(*jax.tree.map(lambda x: x[0], inputs))
  return jax.tree.map(lambda x: x[None], one)


def _step_alone(system, t, state, frame, labels):
  """`step` of a single stream: one branch or the other."""
  shapes = jax.eval_shape(system.learn, state, frame, labels)[2]
  no_info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  predict = lambda: (*system.predict(state, frame), no_info)
  learn = lambda: system.learn(state, frame, labels)
  return lax.cond(system.next_key(state) == t, learn, predict)


class _Learning(NamedTuple):
  """Carry over the buckets of streams that are due."""

  first: jax.Array  # int32, of the due streams those done
  states: State
  classes: jax.Array
  infos: StepInfo


def _step_at_once(system, states, frames, labels, t, bucket):
  """`step` of all streams: predictions in one batch, learning in buckets."""
  num_streams = len(frames)
  is_due = jax.vmap(system.next_key)(states) == t
  # Those that are due first, in their own order.
  order = jnp.argsort(~is_due, stable=True)
  num_due = jnp.sum(is_due)

  def learn(chosen, are_due):
    inputs = jax.tree.map(lambda x: x[chosen], (states, frames, labels))
    if bucket == 1:
      # Without a stream axis a condition is a branch, not a choice of results.
      alone = system.learn(*jax.tree.map(lambda x: x[0], inputs))
      return jax.tree.map(lambda x: x[None], alone)
    *given, their_labels = inputs
    # Labels without weight are agreed with at once.
    weights = jnp.where(are_due[:, None, None], their_labels.weights, 0)
    return jax.vmap(system.learn)(
      *given, their_labels._replace(weights=weights)
    )

  def turn(loop):
    slots = loop.first + jnp.arange(bucket)
    chosen = order[jnp.minimum(slots, num_streams - 1)]
    learnt = learn(chosen, slots < num_due)
    # Beyond the last stream nothing is written.
    to = jnp.where(slots < num_due, chosen, num_streams)
    put = lambda old, new: old.at[to].set(new, mode="drop")
    done = jax.tree.map(put, (loop.states, loop.classes, loop.infos), learnt)
    return _Learning(loop.first + bucket, *done)

  predicted, classes = jax.vmap(system.predict)(states, frames)
  index = jax.ShapeDtypeStruct((bucket,), jnp.int32)
  due = jax.ShapeDtypeStruct((bucket,), bool)
  infos = jax.tree.map(
    lambda x: jnp.zeros((num_streams, *x.shape[1:]), x.dtype),
    jax.eval_shape(learn, index, due)[2],
  )
  first = _Learning(jnp.zeros((), jnp.int32), predicted, classes, infos)
  done = lax.while_loop(lambda loop: loop.first < num_due, turn, first)
  return done.states, done.classes, done.infos


def scan(
  system: System,
  states: State,
  frames: Frame,
  labels: Labels,
  t: ArrayLike = 0,
  *,
  bucket: int | None = None,
) -> tuple[State, tuple[jax.Array, StepInfo]]:
  """`step` over recorded streams, frames and labels [T, S, H, W, ...]."""

  def turn(carry, inputs):
    states, t = carry
    states, classes, infos = step(system, states, *inputs, t, bucket=bucket)
    return (states, t + 1), (classes, infos)

  start = states, jnp.asarray(t, jnp.int32)
  (states, _), outputs = lax.scan(turn, start, (frames, labels))
  return states, outputs


def scan_over(
  devices: Sequence[jax.Device], system: System, *, bucket: int | None = None
) -> Callable[..., Any]:
  """`scan`, jitted, with the streams sharded over devices.

  Args:
    devices: as many as divide the number of streams. Each core of a CPU can be
      one (`jax_num_cpu_devices`): a small network fills no two of them.
    system: any.
    bucket: streams of a device that learn at once.

  Returns:
    (states, frames, labels, t) -> what `scan` returns.
  """
  mesh = Mesh(np.array(devices), ("streams",))
  by_stream, by_time = P("streams"), P(None, "streams")
  sharded = jax.shard_map(
    functools.partial(scan, system, bucket=bucket),
    mesh=mesh,
    in_specs=(by_stream, by_time, by_time, P()),
    out_specs=(by_stream, by_time),
    check_vma=False,
  )
  return jax.jit(sharded)


CASES = [
  Case(functools.partial(many, n), measure.MIDDLE, is_long=bool(i))
  for i, n in enumerate(NUM_STREAMS)
]
