"""Which stream's state lies on which device: engines and their lanes."""

import concurrent.futures
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ojd.distill import State
from ojd.fleet import lane
from ojd.fleet.engine import Engine
from ojd.fleet.programs import AXIS, Shape
from ojd.run import build
from ojd.run.build import Job

# More at once are no faster per frame, and later.
_MOST_PREDICTING, _MOST_LEARNING = 16, 4


class Lanes(NamedTuple):
  """The engines of a fleet, and the system of each of its streams."""

  engines: list[Engine]
  slots: list[lane.Slot]  # by stream

  def close(self) -> None:
    """Ends the engines."""
    for engine in self.engines:
      engine.close()


def shapes(
  num_streams: int, devices: Sequence[jax.Device]
) -> list[tuple[Shape, int]]:
  """Meshes for streams of the same programs, and how many each takes.

  A CPU's devices run a program on several of them in step, each waiting for
  the slowest, and are no faster with several lanes at once: each is a mesh of
  its own, and its lanes are served one by one. Other devices are one mesh.
  """
  devices = list(devices)[:num_streams]
  is_cpu = devices[0].platform == "cpu"
  groups = [[device] for device in devices] if is_cpu else [devices]
  found = []
  for i, group in enumerate(groups):
    # The first ones take what is left over.
    share = len(range(i, num_streams, len(groups)))
    num_lanes = -(-share // len(group))
    predicting = 1 if is_cpu else min(num_lanes, _MOST_PREDICTING)
    learning = 1 if is_cpu else min(num_lanes, _MOST_LEARNING)
    mesh = Mesh(np.array(group), (AXIS,))
    found.append((Shape(mesh, num_lanes, predicting, learning), share))
  return found


def open_lanes(
  jobs: Sequence[Job],
  devices: Sequence[jax.Device],
  note_fn: Callable[[str], None] = lambda note: None,
) -> Lanes:
  """Compiles what the jobs need, which is the same for many of them."""
  by_key: dict[tuple, list[int]] = {}
  for i, job in enumerate(jobs):
    by_key.setdefault(build.program_key(job), []).append(i)
  plans = [
    (indices, shape, share)
    for indices in by_key.values()
    for shape, share in shapes(len(indices), devices)
  ]
  note_fn(
    f"compiling {len(plans)} times, for {len(by_key)} kinds of streams on "
    f"{len(devices)} devices"
  )
  firsts = functools.cache(_first_state)
  with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
    made = [
      pool.submit(
        _engine,
        jobs[indices[0]],
        shape,
        firsts(_Beginning(jobs[indices[0]])),
      )
      for indices, shape, _ in plans
    ]
    engines = [each.result() for each in made]
  slots: list[lane.Slot | None] = [None] * len(jobs)
  taken = dict.fromkeys(by_key, 0)
  for (indices, _, share), engine in zip(plans, engines, strict=True):
    key = build.program_key(jobs[indices[0]])
    own = indices[taken[key] : taken[key] + share]
    taken[key] += share
    next_key = jax.jit(jobs[indices[0]].system.next_key)
    for place, i in enumerate(own):
      first = functools.partial(firsts, _Beginning(jobs[i]))
      slots[i] = lane.Slot(
        *(engine, place, first, lambda s, f=next_key: int(f(s)))
      )
  return Lanes(engines, slots)


class _Beginning:
  """A job as far as its first state follows from it."""

  def __init__(self, job: Job):
    self.job = job
    config = job.config
    self._key = (
      *(build.program_key(job), config.init, config.seed),
      *(job.groups.names, job.groups.members),
    )

  def __hash__(self) -> int:
    return hash(self._key)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, _Beginning) and self._key == other._key


def _first_state(beginning) -> State:
  job, spec = beginning.job, beginning.job.stream.spec
  # A network's parameters do not depend on what its first frame shows.
  frame = np.zeros((spec.height, spec.width, 3), np.uint8)
  init = jax.jit(job.system.init)
  return jax.device_get(init(jax.random.key(job.config.seed), frame))


def _engine(job, shape, state):
  spec = job.stream.spec
  return Engine(job.system, shape, state, spec.height, spec.width)
