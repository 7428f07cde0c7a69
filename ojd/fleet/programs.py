"""Programs over many streams whose states lie on a mesh of devices.

A slot holds the state of one stream; every device has an equal share of the
slots. A call runs a batch of requests: each device has a number of rows, and a
row names its slot. Slots without a row stay as they are, and no device waits
for another one.
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

AXIS = "slots"
_BY_SLOT = P(AXIS)


class Shape(NamedTuple):
  """How slots lie on devices, and how large a batch of requests is."""

  mesh: Mesh  # of one axis, AXIS
  num_slots: int  # of each device
  predict_rows: int  # of each device
  learn_rows: int  # of each device

  @property
  def devices(self) -> list[jax.Device]:
    """The devices in the order of their slots."""
    return list(self.mesh.devices.flat)


class Programs(NamedTuple):
  """Compiled programs of one shape; a call that returns `states` consumes them.

  `slots` are [rows of all devices] int32: for each row a slot of its device, or
  `num_slots` where the row is unused.
  """

  # (states, slots, frames) -> (states, classes, next_keys)
  predict: Callable[..., Any]
  # (states, slots, frames, labels) -> (states, classes, next_keys, infos)
  learn: Callable[..., Any]
  # (states, slots of one row a device, state) -> states
  write: Callable[..., Any]


def broadcast(shape: Shape, state: State) -> State:
  """States of all slots, equal to this one."""
  total = shape.num_slots * shape.mesh.size
  repeat = lambda x: jnp.broadcast_to(x[None], (total, *x.shape))
  sharding = NamedSharding(shape.mesh, _BY_SLOT)
  make = jax.jit(lambda s: jax.tree.map(repeat, s), out_shardings=sharding)
  return make(jax.tree.map(np.asarray, state))


def compile_programs(
  system: System, shape: Shape, state: State, height: int, width: int
) -> Programs:
  """Compiles all programs for frames of one size.

  Args:
    system: of all streams.
    shape: of the slots.
    state: of one slot, or its shapes.
    height: of the frames; so is width.
  """
  one = jax.eval_shape(lambda: state)
  by_slot = NamedSharding(shape.mesh, _BY_SLOT)
  replicated = NamedSharding(shape.mesh, P())
  num_devices = shape.mesh.size

  def array(size, dtype, *rest):
    return jax.ShapeDtypeStruct((size, *rest), dtype, sharding=by_slot)

  def requests(rows):
    rows *= num_devices
    frames = array(rows, np.uint8, height, width, 3)
    classes = array(rows, np.uint8, height, width)
    weights = array(rows, np.float32, height, width)
    return array(rows, np.int32), frames, Labels(classes, weights)

  def build(body, *inputs, specs=None):
    specs = specs or (_BY_SLOT,) * len(inputs)
    mapped = jax.shard_map(
      body, mesh=shape.mesh, in_specs=specs, out_specs=_BY_SLOT, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0).lower(*inputs).compile()

  total = shape.num_slots * num_devices
  states = jax.tree.map(lambda x: array(total, x.dtype, *x.shape), one)
  slots, frames, _ = requests(shape.predict_rows)
  new_state = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), one
  )
  return Programs(
    predict=build(functools.partial(_predict, system), states, slots, frames),
    learn=build(
      functools.partial(_learn, system), states, *requests(shape.learn_rows)
    ),
    write=build(
      _write,
      *(states, array(num_devices, np.int32), new_state),
      specs=(_BY_SLOT, _BY_SLOT, P()),
    ),
  )


def read_slot(states: State, device: jax.Device, slot: int) -> State:
  """The state of one of a device's slots, on that device."""

  def part(x):
    (shard,) = (s.data for s in x.addressable_shards if s.device == device)
    return shard

  return _pick(jax.tree.map(part, states), np.int32(slot))


@jax.jit
def _pick(states, slot):
  pick = lambda x: lax.dynamic_index_in_dim(x, slot, keepdims=False)
  return jax.tree.map(pick, states)


def _predict(system, states, slots, frames):
  """The rows of one device."""

  def one(state, frame):
    state, classes = system.predict(state, frame)
    return state, classes, system.next_key(state)

  return _at_slots(one, states, slots, frames)


def _learn(system, states, slots, frames, labels):
  # Labels without weight are agreed with at once: nobody waits for unused rows.
  is_used = (slots < _num_slots(states))[:, None, None]
  weights = jnp.where(is_used, labels.weights, 0)

  def one(state, frame, labels):
    state, classes, info = system.learn(state, frame, labels)
    return state, classes, system.next_key(state), info

  return _at_slots(one, states, slots, frames, labels._replace(weights=weights))


def _write(states, slots, state):
  put = lambda old, new: old.at[slots].set(new[None], mode="drop")
  return jax.tree.map(put, states, state)


def _num_slots(states):
  return len(jax.tree.leaves(states)[0])


def _at_slots(step, states, slots, *inputs):
  """Steps the slots of all rows: (state, ...) -> (state, outputs...)."""
  if len(slots) == 1:
    return _at_slot(step, states, slots[0], *inputs)
  within = jnp.minimum(slots, _num_slots(states) - 1)
  chosen = jax.tree.map(lambda x: x[within], states)
  stepped, *outputs = jax.vmap(step)(chosen, *inputs)
  put = lambda old, new: old.at[slots].set(new, mode="drop")
  return jax.tree.map(put, states, stepped), *outputs


def _at_slot(step, states, slot, *inputs):
  """`_at_slots` of a single row, stepped like a run alone.

  Without a batch axis a condition is a branch, not a choice of results, and
  convolutions are those of one network.
  """
  is_used = slot < _num_slots(states)
  slot = jnp.minimum(slot, _num_slots(states) - 1)
  pick = lambda x: lax.dynamic_index_in_dim(x, slot, keepdims=False)
  state = jax.tree.map(pick, states)
  inputs = jax.tree.map(lambda x: x[0], inputs)
  blank = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype),
    jax.eval_shape(step, state, *inputs)[1:],
  )
  stepped, *outputs = lax.cond(
    is_used, lambda: step(state, *inputs), lambda: (state, *blank)
  )
  put = lambda old, new: lax.dynamic_update_index_in_dim(old, new, slot, 0)
  states = jax.tree.map(put, states, stepped)
  return states, *jax.tree.map(lambda x: x[None], outputs)
