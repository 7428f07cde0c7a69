"""The programs of many lanes whose states lie spread over a mesh of devices.

A lane is one stream's state. A device holds an equal share of the lanes, and
one call serves some of them: each device has so many slots, and a slot names
the lane that it is for. Lanes that no slot names stay as they are, and no
device waits for what another computes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ojd.distill import State, System
from ojd.types import Labels

AXIS = "lanes"
_BY_LANE = P(AXIS)


class Shape(NamedTuple):
  """How lanes lie on devices."""

  mesh: Mesh  # of one axis, AXIS
  num_lanes: int  # of each device
  num_predicting: int  # slots of each device, for a call
  num_learning: int  # likewise

  @property
  def devices(self) -> list[jax.Device]:
    """In the order of their lanes."""
    return list(self.mesh.devices.flat)


class Programs(NamedTuple):
  """Compiled for one shape; `states` are consumed wherever they are returned.

  `places` are [slots of all devices] int32: for each slot the lane of its
  device, or `num_lanes` where the slot is free.
  """

  # (states, places, frames) -> (states, classes, next_keys)
  predict: Callable[..., Any]
  # (states, places, frames, labels) -> (states, classes, next_keys, infos)
  learn: Callable[..., Any]
  # (states, places of one slot a device, state) -> states
  write: Callable[..., Any]


def spread(shape: Shape, state: State) -> State:
  """The states of all lanes, each of which begins as this one."""
  total = shape.num_lanes * shape.mesh.size
  many = lambda x: jnp.broadcast_to(x[None], (total, *x.shape))
  sharding = NamedSharding(shape.mesh, _BY_LANE)
  make = jax.jit(lambda s: jax.tree.map(many, s), out_shardings=sharding)
  return make(jax.tree.map(np.asarray, state))


def compile_programs(
  system: System, shape: Shape, state: State, height: int, width: int
) -> Programs:
  """All programs for frames of one size, ahead of time.

  Args:
    system: any.
    shape: of the lanes.
    state: of one lane, or its shapes.
    height: of the frames.
    width: likewise.
  """
  one = jax.eval_shape(lambda: state)
  own = NamedSharding(shape.mesh, _BY_LANE)
  all_lanes = NamedSharding(shape.mesh, P())

  def given(size, dtype, *rest):
    return jax.ShapeDtypeStruct((size, *rest), dtype, sharding=own)

  total = shape.num_lanes * shape.mesh.size
  states = jax.tree.map(lambda x: given(total, x.dtype, *x.shape), one)

  def asked(slots):
    slots *= shape.mesh.size
    frames = given(slots, np.uint8, height, width, 3)
    classes = given(slots, np.uint8, height, width)
    weights = given(slots, np.float32, height, width)
    return given(slots, np.int32), frames, Labels(classes, weights)

  def build(body, *inputs, specs=None):
    specs = specs or (_BY_LANE,) * len(inputs)
    mapped = jax.shard_map(
      body, mesh=shape.mesh, in_specs=specs, out_specs=_BY_LANE, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0).lower(*inputs).compile()

  places, frames, _ = asked(shape.num_predicting)
  predict = build(functools.partial(_predict, system), states, places, frames)
  learn = build(
    functools.partial(_learn, system), states, *asked(shape.num_learning)
  )
  write = build(
    _write,
    *(states, given(shape.mesh.size, np.int32)),
    jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=all_lanes), one
    ),
    specs=(_BY_LANE, _BY_LANE, P()),
  )
  return Programs(predict, learn, write)


def read_lane(states: State, device: jax.Device, place: int) -> State:
  """The state of a device's lane, on that device."""

  def part(x):
    (shard,) = (s.data for s in x.addressable_shards if s.device == device)
    return shard

  return _pick(jax.tree.map(part, states), np.int32(place))


@jax.jit
def _pick(states, place):
  pick = lambda x: lax.dynamic_index_in_dim(x, place, keepdims=False)
  return jax.tree.map(pick, states)


def _predict(system, states, places, frames):
  """On one device: its lanes, its slots."""

  def one(state, frame):
    state, classes = system.predict(state, frame)
    return state, classes, system.next_key(state)

  return _at_places(one, states, places, frames)


def _learn(system, states, places, frames, labels):
  num_lanes = _num_lanes(states)
  # Labels without weight are agreed with at once: free slots keep none waiting.
  is_used = (places < num_lanes)[:, None, None]
  weights = jnp.where(is_used, labels.weights, 0)

  def one(state, frame, labels):
    state, classes, info = system.learn(state, frame, labels)
    return state, classes, system.next_key(state), info

  given = frames, labels._replace(weights=weights)
  return _at_places(one, states, places, *given)


def _write(states, places, state):
  put = lambda all_of, x: all_of.at[places].set(x[None], mode="drop")
  return jax.tree.map(put, states, state)


def _num_lanes(states):
  return len(jax.tree.leaves(states)[0])


def _at_places(step, states, places, *inputs):
  """Steps the lanes of all slots: (state, ...) -> (state, outputs...)."""
  if len(places) == 1:
    return _at_place(step, states, places[0], *inputs)
  last = jnp.minimum(places, _num_lanes(states) - 1)
  chosen = jax.tree.map(lambda x: x[last], states)
  moved, *outputs = jax.vmap(step)(chosen, *inputs)
  put = lambda old, new: old.at[places].set(new, mode="drop")
  return jax.tree.map(put, states, moved), *outputs


def _at_place(step, states, place, *inputs):
  """The same of a single slot: a lane is stepped as it would be alone.

  Without a lane axis a condition is a branch, not a choice of results, and
  convolutions are those of one network.
  """
  is_used = place < _num_lanes(states)
  place = jnp.minimum(place, _num_lanes(states) - 1)
  pick = lambda x: lax.dynamic_index_in_dim(x, place, keepdims=False)
  state = jax.tree.map(pick, states)
  given = jax.tree.map(lambda x: x[0], inputs)
  blank = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype),
    jax.eval_shape(step, state, *given)[1:],
  )
  moved, *outputs = lax.cond(
    is_used, lambda: step(state, *given), lambda: (state, *blank)
  )
  put = lambda old, new: lax.dynamic_update_index_in_dim(old, new, place, 0)
  states = jax.tree.map(put, states, moved)
  return states, *jax.tree.map(lambda x: x[None], outputs)
