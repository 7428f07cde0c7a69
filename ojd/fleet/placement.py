"""Placement of streams' states on devices, and how many streams fit."""

import concurrent.futures
import functools
import pathlib
import resource
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import psutil
from jax.sharding import Mesh

from ojd.distill import State
from ojd.errors import UserError
from ojd.fleet.engine import Engine, Slot
from ojd.fleet.programs import AXIS, Shape
from ojd.run import build
from ojd.run.build import Job

# Larger batches are no faster per frame, and answer later.
_MAX_PREDICT_ROWS, _MAX_LEARN_ROWS = 16, 4
# Copies of a stream's state: in its engine, on its way to a checkpoint, and
# read there.
_STATES = 3
# Decoded ahead, at hand, on the way to the device and to files.
_FRAMES, _BYTES_PER_PIXEL = 12, 4
# Threads, logs and a decoder, as measured over runs of one to thirty-two.
_BYTES_PER_STREAM = 24 << 20
_FILES_PER_STREAM = 12
_SHARE = 0.9  # of what is free; the rest is for what comes later
_CGROUP = pathlib.Path("/sys/fs/cgroup")


class Placement(NamedTuple):
  """The engines of a fleet, and the slot of each of its streams."""

  engines: list[Engine]
  slots: list[Slot]  # by stream

  def close(self) -> None:
    """Ends the engines."""
    for engine in self.engines:
      engine.close()


def shapes(
  num_streams: int, devices: Sequence[jax.Device]
) -> list[tuple[Shape, int]]:
  """Meshes for streams of the same programs, and how many each takes.

  A CPU's devices run a program on several of them in step, each waiting for
  the slowest, and are no faster with batches: each is a mesh of its own, and
  its slots are served one by one. Other devices are one mesh.
  """
  devices = list(devices)[:num_streams]
  is_cpu = devices[0].platform == "cpu"
  groups = [[device] for device in devices] if is_cpu else [devices]
  found = []
  for i, group in enumerate(groups):
    # The first ones take what is left over.
    share = len(range(i, num_streams, len(groups)))
    num_slots = -(-share // len(group))
    predict_rows = 1 if is_cpu else min(num_slots, _MAX_PREDICT_ROWS)
    learn_rows = 1 if is_cpu else min(num_slots, _MAX_LEARN_ROWS)
    mesh = Mesh(np.array(group), (AXIS,))
    found.append((Shape(mesh, num_slots, predict_rows, learn_rows), share))
  return found


def place(
  jobs: Sequence[Job],
  devices: Sequence[jax.Device],
  note_fn: Callable[[str], None] = lambda note: None,
) -> Placement:
  """Gives every job a slot; engines are compiled once for equal programs."""
  by_program: dict[tuple, list[int]] = {}
  for i, job in enumerate(jobs):
    by_program.setdefault(build.program_key(job), []).append(i)
  plans: list[tuple[list[int], Shape]] = []
  for indices in by_program.values():
    start = 0
    for shape, share in shapes(len(indices), devices):
      plans.append((indices[start : start + share], shape))
      start += share
  note_fn(
    f"compiling {len(plans)} times, for {len(by_program)} kinds of streams on "
    f"{len(devices)} devices"
  )
  first_states = _FirstStates()
  with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
    pending = [
      pool.submit(
        _make_engine, jobs[indices[0]], shape, first_states(jobs[indices[0]])
      )
      for indices, shape in plans
    ]
    engines = [each.result() for each in pending]
  slots: dict[int, Slot] = {}
  for (indices, _), engine in zip(plans, engines, strict=True):
    next_key = jax.jit(jobs[indices[0]].system.next_key)
    for number, i in enumerate(indices):
      first_state = functools.partial(first_states, jobs[i])
      slots[i] = Slot(
        *(engine, number, first_state, lambda s, f=next_key: int(f(s)))
      )
  return Placement(engines, [slots[i] for i in range(len(jobs))])


def _make_engine(job, shape, state):
  spec = job.stream.spec
  return Engine(job.system, shape, state, spec.height, spec.width)


class _FirstStates:
  """The states that jobs begin with; those that begin equal share one."""

  def __init__(self):
    self._states: dict[tuple, State] = {}

  def __call__(self, job: Job) -> State:
    key = (
      *(build.program_key(job), job.config.init, job.config.seed),
      *(job.groups.names, job.groups.members),
    )
    if key not in self._states:
      spec = job.stream.spec
      # A network's parameters do not depend on what its first frame shows.
      frame = np.zeros((spec.height, spec.width, 3), np.uint8)
      init = jax.jit(job.system.init)
      state = init(jax.random.key(job.config.seed), frame)
      self._states[key] = jax.device_get(state)
    return self._states[key]


def bytes_of(job: Job) -> tuple[int, int]:
  """What a stream takes while it runs: of a device's memory, of the host's."""
  state = sum(_size(x) for x in jax.tree.leaves(build.abstract_state(job)))
  spec = job.stream.spec
  frames = _FRAMES * _BYTES_PER_PIXEL * spec.height * spec.width
  return state, (_STATES - 1) * state + frames + _BYTES_PER_STREAM


def _size(x):
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    return x.size * 16
  return x.size * np.dtype(x.dtype).itemsize


def check_memory(jobs: Sequence[Job]) -> None:
  """Raises a UserError unless all streams can run at once."""
  sizes = [bytes_of(job) for job in jobs]
  if jax.default_backend() == "cpu":  # whose memory is the host's
    sizes = [(0, sum(size)) for size in sizes]
  rooms = (("GPU", free_on_devices()), ("main", free_on_host()))
  for part, (place, room) in enumerate(rooms):
    sums = np.cumsum([size[part] for size in sizes])
    fitting = int(np.searchsorted(sums, _SHARE * room, side="right"))
    if fitting < len(jobs):
      raise UserError(
        f"--streams: {len(jobs)} streams take {sums[-1] / 1e9:.1f} GB of "
        f"{place} memory, and {room / 1e9:.1f} GB are free: {fitting} fit; "
        "share them between machines (--ray), or make --height and --width "
        "smaller"
      )


def allow_files(num_streams: int) -> None:
  """Lets the process have as many files open as it will need, if it may."""
  wanted = 256 + _FILES_PER_STREAM * num_streams
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if hard != resource.RLIM_INFINITY and wanted > hard:
    fitting = max((hard - 256) // _FILES_PER_STREAM, 0)
    raise UserError(
      f"--streams: {num_streams} streams have {wanted} files open, and {hard} "
      f"are allowed here: {fitting} streams fit; `ulimit -Hn` is the limit"
    )
  if soft != resource.RLIM_INFINITY and wanted > soft:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_on_devices() -> int:
  """Bytes that all accelerators together can still give."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  return sum(s.get("bytes_limit", 0) - s.get("bytes_in_use", 0) for s in stats)


def free_on_host() -> int:
  """Bytes that this process can still have."""
  free = psutil.virtual_memory().available
  try:
    limit = (_CGROUP / "memory.max").read_text().strip()
    used = (_CGROUP / "memory.current").read_text().strip()
  except OSError:
    return free
  return free if limit == "max" else min(free, int(limit) - int(used))
