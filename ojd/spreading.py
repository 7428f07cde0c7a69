"""One training over many devices, of one host or of several.

Every device holds the whole state and learns from rows of its own of every
batch; the means over the devices are those over the batch, so that all take the
same step. Hosts are processes that `jax.distributed` has joined; only the first
of them writes.
"""

import itertools
import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.flatten_util
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ojd.errors import UserError

AXIS = "batch"
_PATIENCE_MS = 3_600_000
_places = itertools.count()  # hosts come by the same ones in the same order


def over(devices: Sequence[jax.Device]) -> Mesh:
  """A mesh of these devices; those of a host are neighbours in it."""
  order = sorted(devices, key=lambda d: (d.process_index, d.id))
  return Mesh(np.array(order), (AXIS,))


def rows(mesh: Mesh | None, batch: int) -> slice:
  """Which frames of a batch this host has to make; without a mesh all."""
  if mesh is None:
    return slice(0, batch)
  if batch % mesh.size:
    raise UserError(
      f"a batch of {batch} frames does not divide by {mesh.size} devices; "
      "take another --batch or fewer --devices"
    )
  mine = [d.process_index == jax.process_index() for d in mesh.devices.flat]
  first, each = mine.index(True), batch // mesh.size
  return slice(first * each, (first + sum(mine)) * each)


def is_first() -> bool:
  """Whether this host is the one that writes."""
  return jax.process_index() == 0


def mean(tree: Any) -> Any:
  """The mean over the devices, within a step of `spread`.

  Args:
    tree: of one dtype. It goes as one vector: between CPUs each array costs a
      message (the gradients of a student 312 ms, as a vector 7 ms).
  """
  vector, unravel = jax.flatten_util.ravel_pytree(tree)
  return unravel(lax.pmean(vector, AXIS))


def spread(
  mesh: Mesh, step_fn: Callable[..., tuple[Any, jax.Array]]
) -> Callable[..., tuple[Any, jax.Array, jax.Array]]:
  """A step of which every device does its rows of the batch.

  Args:
    mesh: of `over`.
    step_fn: (state, *batch) -> (state, loss), the same on all devices: what
      comes of the batch it takes by `mean`.

  Returns:
    (state, wish, batch) -> (state, loss, is_wished); the state is donated, the
    batch this host's rows. A wish of any host, a bool, is every host's.
  """
  step = program(mesh, step_fn)
  num_here = len(mesh.local_devices)
  compiled = []

  def call(state, wish, batch):
    wishes = np.full(num_here, wish, np.int32)
    given = state, *place(mesh, P(AXIS), (wishes, batch))
    if not compiled:
      compiled.append(step.lower(*given).compile())
      wait()
    return compiled[0](*given)

  return call


def program(mesh: Mesh, step_fn: Callable[..., Any]) -> Any:
  """What `spread` runs, jitted: (state, wishes, batch), which are placed.

  Each device runs the program of a single one: left to divide it by itself,
  XLA gathers the batch again for loops over it, such as those of the kernels'
  gradients on a CPU.
  """

  def one(state, wishes, batch):
    state, loss = step_fn(state, *batch)
    return state, loss, lax.pmax(wishes, AXIS)[0]

  by_row = P(AXIS)
  spread_over = jax.shard_map(
    one,
    mesh=mesh,
    in_specs=(P(), by_row, by_row),
    out_specs=P(),
    check_vma=False,
  )
  return jax.jit(spread_over, donate_argnums=0)


def place(mesh: Mesh, spec: P, tree: Any) -> Any:
  """Arrays over all hosts, of this host's part of them."""
  sharding = NamedSharding(mesh, spec)
  make = jax.make_array_from_process_local_data
  return jax.tree.map(lambda x: make(sharding, np.asarray(x)), tree)


def begin(mesh: Mesh, state: Any) -> Any:
  """The first host's state on every device."""
  wait()
  return place(mesh, P(), multihost_utils.broadcast_one_to_all(state))


def wait() -> None:
  """Until all hosts are here.

  What they exchange has to begin within half a minute on all of them, and one
  may have to draw, read or compile for longer than another.
  """
  if jax.process_count() == 1:
    return
  # Only a training over several hosts needs it, and it takes a second.
  from orbax.checkpoint import multihost

  meet = multihost.get_barrier_sync_fn()
  meet(key=f"ojd {next(_places)}", timeout_ms=_PATIENCE_MS)


def all_do(fn: Callable[[], Any]) -> Any:
  """What `fn` returns here; where it fails on one host, it fails on all.

  The hosts then part in good order: no one waits for another.
  """
  if jax.process_count() == 1:
    return fn()
  found = error = None
  try:
    found = fn()
  except Exception as raised:
    error = raised
  if _gather(error is None).all():
    return found
  jax.distributed.shutdown()
  raise error or RuntimeError("another host could not go on: see its own words")


def check_same(about: dict[str, Any]) -> None:
  """Refuses hosts that were started to train something else."""
  digest = zlib.crc32(json.dumps(about, sort_keys=True).encode())
  if (_gather(np.uint32(digest)) != digest).any():
    jax.distributed.shutdown()
    raise UserError("the hosts have other flags or other data than another")


def _gather(value):
  """What every host has, in their order."""
  wait()
  return multihost_utils.process_allgather(np.asarray(value))
