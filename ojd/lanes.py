"""Many streams as one program: all predict, only those that are due learn.

A lane is one stream with a state of its own; every array of a lane's state,
frame and labels has the lanes as its first axis, S. Lanes do not see each
other: each goes the way it would go alone.
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

from ojd.distill import State, System
from ojd.types import Frame, Labels, StepInfo


def init(system: System, rng_keys: jax.Array, frames: Frame) -> State:
  """The first states; keys [S], consumed, and frames [S, H, W, 3]."""
  return jax.vmap(system.init)(rng_keys, frames)


class _Learning(NamedTuple):
  """Carry over the buckets of lanes that are due."""

  first: jax.Array  # int32, of the due lanes those done
  states: State
  classes: jax.Array
  infos: StepInfo


def step(
  system: System,
  states: State,
  frames: Frame,
  labels: Labels,
  t: ArrayLike,
  *,
  bucket: int | None = None,
) -> tuple[State, jax.Array, StepInfo]:
  """Frame t of every lane.

  Args:
    system: any.
    states: of S lanes.
    frames: [S, H, W, 3] uint8.
    labels: classes and weights, [S, H, W] each; read where a lane is due.
    t: which frame this is, of all lanes.
    bucket: None: a lane after the other, for where many are no faster at once,
      as on a CPU, whose cache holds one. Else all predict at once, and so many
      of those that are due learn at once: one costs no other anything; of
      several the slowest is waited for.

  Returns:
    The states, classes [S, H, W], and infos, fields [S]; 0 where not due.
  """
  lanes = jax.tree.map(jnp.asarray, (states, frames, labels))
  if bucket is None:
    alone = functools.partial(_step_alone, system, t)
    if len(frames) > 1:
      return lax.map(lambda lane: alone(*lane), lanes)
    # A loop of one turn XLA's CPU back end makes something half as fast.
    one = alone(*jax.tree.map(lambda x: x[0], lanes))
    return jax.tree.map(lambda x: x[None], one)
  return _step_at_once(system, *lanes, t, bucket)


def _step_alone(system, t, state, frame, labels):
  """`step` of a single lane: one branch or the other."""
  shapes = jax.eval_shape(system.learn, state, frame, labels)[2]
  no_info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  predict = lambda: (*system.predict(state, frame), no_info)
  learn = lambda: system.learn(state, frame, labels)
  return lax.cond(system.next_key(state) == t, learn, predict)


def _step_at_once(system, states, frames, labels, t, bucket):
  """`step` of all lanes: predictions in one batch, learning in buckets."""
  num_lanes = len(frames)
  is_due = jax.vmap(system.next_key)(states) == t
  # Those that are due first, in their own order.
  order = jnp.argsort(~is_due, stable=True)
  num_due = jnp.sum(is_due)
  learn, shape = _learn_fn(system, states, frames, labels, bucket)

  def turn(loop):
    slots = loop.first + jnp.arange(bucket)
    chosen = order[jnp.minimum(slots, num_lanes - 1)]
    learnt = learn(chosen, slots < num_due)
    # Beyond the last lane nothing is written.
    to = jnp.where(slots < num_due, chosen, num_lanes)
    put = lambda old, new: old.at[to].set(new, mode="drop")
    told = jax.tree.map(put, (loop.states, loop.classes, loop.infos), learnt)
    return _Learning(loop.first + bucket, *told)

  predicted, classes = jax.vmap(system.predict)(states, frames)
  infos = jax.tree.map(
    lambda x: jnp.zeros((num_lanes, *x.shape[1:]), x.dtype), shape[2]
  )
  first = _Learning(jnp.zeros((), jnp.int32), predicted, classes, infos)
  done = lax.while_loop(lambda loop: loop.first < num_due, turn, first)
  return done.states, done.classes, done.infos


def _learn_fn(system, states, frames, labels, bucket):
  """Learning of chosen lanes, (indices, are_due) -> what `learn` returns."""

  def learn(chosen, are_due):
    inputs = jax.tree.map(lambda x: x[chosen], (states, frames, labels))
    if bucket == 1:
      # Without a lane axis a condition is a branch, not a choice of results.
      alone = system.learn(*jax.tree.map(lambda x: x[0], inputs))
      return jax.tree.map(lambda x: x[None], alone)
    *given, taught = inputs
    # Labels without weight are agreed with at once.
    weights = jnp.where(are_due[:, None, None], taught.weights, 0)
    return jax.vmap(system.learn)(*given, taught._replace(weights=weights))

  index = jax.ShapeDtypeStruct((bucket,), jnp.int32)
  due = jax.ShapeDtypeStruct((bucket,), bool)
  return learn, jax.eval_shape(learn, index, due)


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
    one = functools.partial(step, system, bucket=bucket)
    states, classes, infos = one(states, *inputs, t)
    return (states, t + 1), (classes, infos)

  start = states, jnp.asarray(t, jnp.int32)
  (states, _), outputs = lax.scan(turn, start, (frames, labels))
  return states, outputs


def scan_over(
  devices: Sequence[jax.Device], system: System, *, bucket: int | None = None
) -> Callable[..., Any]:
  """`scan`, jitted, with the lanes spread over devices that share nothing.

  Args:
    devices: as many as divide the number of lanes. Of a CPU's cores each can be
      one (`jax_num_cpu_devices`): a small network fills no two of them.
    system: any.
    bucket: lanes of a device that learn at once.

  Returns:
    (states, frames, labels, t) -> what `scan` returns.
  """
  mesh = Mesh(np.array(devices), ("lanes",))
  by_lane, by_time = P("lanes"), P(None, "lanes")
  spread = jax.shard_map(
    functools.partial(scan, system, bucket=bucket),
    mesh=mesh,
    in_specs=(by_lane, by_time, by_time, P()),
    out_specs=(by_lane, by_time),
    check_vma=False,
  )
  return jax.jit(spread)
