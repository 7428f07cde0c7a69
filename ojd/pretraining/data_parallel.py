"""Data-parallel training over the devices of one host or of several.

Every device has the whole state and its own rows of every batch. Gradients are
averaged over the devices, so that all take the same step. Hosts are processes
that `jax.distributed` has connected; only the first one writes files.
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
_barriers = itertools.count()  # the same on all hosts, in the same order


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
  """A mesh with one axis, in which the devices of a host are neighbors."""
  order = sorted(devices, key=lambda d: (d.process_index, d.id))
  return Mesh(np.array(order), (AXIS,))


def rows(mesh: Mesh | None, batch: int) -> slice:
  """The frames of a batch that this host makes; without a mesh all of them."""
  if mesh is None:
    return slice(0, batch)
  if batch % mesh.size:
    raise UserError(
      f"a batch of {batch} frames does not divide by {mesh.size} devices; "
      "give another --batch or fewer --devices"
    )
  mine = [d.process_index == jax.process_index() for d in mesh.devices.flat]
  first, each = mine.index(True), batch // mesh.size
  return slice(first * each, (first + sum(mine)) * each)


def is_first_host() -> bool:
  """Whether this host is the one that writes files."""
  return jax.process_index() == 0


def mean(tree: Any) -> Any:
  """The mean over the devices, inside a step of `parallel`.

  Args:
    tree: of one dtype. It is sent as one vector, since every array costs a
      message between CPUs (a student's gradients: 312 ms, as a vector 7 ms).
  """
  vector, unravel = jax.flatten_util.ravel_pytree(tree)
  return unravel(lax.pmean(vector, AXIS))


def parallel(
  mesh: Mesh, step_fn: Callable[..., tuple[Any, jax.Array]]
) -> Callable[..., tuple[Any, jax.Array, jax.Array]]:
  """Makes a training step in which every device has its rows of the batch.

  Args:
    mesh: from `mesh_of`.
    step_fn: (state, *batch) -> (state, loss). The result must be the same on
      all devices: it uses `mean` for what depends on the batch.

  Returns:
    (state, should_stop, batch) -> (state, loss, should_stop). The state is
    donated; the batch has this host's rows. All hosts stop if one should.
  """
  step = program(mesh, step_fn)
  num_here = len(mesh.local_devices)
  compiled = []

  def call(state, should_stop, batch):
    stops = np.full(num_here, should_stop, np.int32)
    given = state, *shard(mesh, P(AXIS), (stops, batch))
    if not compiled:
      compiled.append(step.lower(*given).compile())
      wait_for_hosts()
    return compiled[0](*given)

  return call


def program(mesh: Mesh, step_fn: Callable[..., Any]) -> Any:
  """The jitted program of `parallel`: (state, stops, batch), all sharded.

  Each device runs the program of a single device. If XLA divides the program by
  itself, it gathers the batch again for loops over it, such as those for the
  gradients of kernels on a CPU.
  """

  def one(state, stops, batch):
    state, loss = step_fn(state, *batch)
    return state, loss, lax.pmax(stops, AXIS)[0]

  by_row = P(AXIS)
  sharded = jax.shard_map(
    one,
    mesh=mesh,
    in_specs=(P(), by_row, by_row),
    out_specs=P(),
    check_vma=False,
  )
  return jax.jit(sharded, donate_argnums=0)


def shard(mesh: Mesh, spec: P, tree: Any) -> Any:
  """Makes global arrays from this host's part of each."""
  sharding = NamedSharding(mesh, spec)
  make = jax.make_array_from_process_local_data
  return jax.tree.map(lambda x: make(sharding, np.asarray(x)), tree)


def replicate(mesh: Mesh, state: Any) -> Any:
  """Copies the first host's state to every device."""
  wait_for_hosts()
  return shard(mesh, P(), multihost_utils.broadcast_one_to_all(state))


def wait_for_hosts() -> None:
  """A barrier over all hosts.

  A collective operation must start within half a minute on all of them, but the
  time to draw, read or compile may differ by more.
  """
  if jax.process_count() == 1:
    return
  # Imported here: only several hosts need it, and it takes a second.
  from orbax.checkpoint import multihost

  meet = multihost.get_barrier_sync_fn()
  meet(key=f"ojd {next(_barriers)}", timeout_ms=_PATIENCE_MS)


def on_all_hosts(fn: Callable[[], Any]) -> Any:
  """Calls `fn` and returns its result; if it fails on one host, all fail.

  After a failure the hosts disconnect, so that none waits for another.
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
  raise error or RuntimeError("another host failed: see its output")


def check_same(about: dict[str, Any]) -> None:
  """Raises a UserError unless all hosts have the same flags and data."""
  digest = zlib.crc32(json.dumps(about, sort_keys=True).encode())
  if (_gather(np.uint32(digest)) != digest).any():
    jax.distributed.shutdown()
    raise UserError("the hosts were started with different flags or data")


def _gather(value):
  """The values of all hosts, in the order of the hosts."""
  wait_for_hosts()
  return multihost_utils.process_allgather(np.asarray(value))
