"""Runs several systems over the same streams."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ojd.compare import folder as folders
from ojd.compare import numbers, spec
from ojd.compare.pool import (
  Check,
  Failed,
  Moved,
  Pool,
  Ran,
  Refused,
  Run,
  Stopped,
)
from ojd.compare.spec import StreamEntry, SystemEntry
from ojd.compare.table import Cell
from ojd.errors import UserError
from ojd.run import config as config_lib
from ojd.run import workdir
from ojd.run.config import RunConfig

_MAX_CELLS, _MAX_JOBS = 10_000, 256


class Request(NamedTuple):
  """The systems and streams to compare."""

  config: RunConfig  # what is no part of a stream or a system
  streams: tuple[StreamEntry, ...]
  systems: tuple[SystemEntry, ...]
  seeds: tuple[int, ...]
  output: pathlib.Path
  num_jobs: int = 1
  has_davis: bool = False  # J and F are wanted
  updates: tuple[SystemEntry, ...] = ()  # systems whose changes are counted
  has_temporal: bool = False  # consistency and flicker are wanted

  def wanted(self, system: SystemEntry) -> frozenset[str]:
    """The measures after a run of the system."""
    is_wanted = {
      numbers.DAVIS: self.has_davis,
      numbers.TEMPORAL: self.has_temporal,
      numbers.CHANGES: system in self.updates,
    }
    return frozenset(name for name, wanted in is_wanted.items() if wanted)


class Progress(NamedTuple):
  """The progress of a comparison."""

  num_frames: int  # done, of all cells
  total: int | None  # None where a stream does not say how long it is
  num_cells: int  # done
  num_all: int
  news: str = ""  # of the cell that just ended


ProgressFn = Callable[[Progress], None]
CommandFn = Callable[[RunConfig], str]


def run(
  request: Request,
  command_fn: CommandFn,
  *,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> list[Cell] | None:
  """Runs the cells that are not finished yet; None if it was stopped.

  Everything is checked before the first cell. A cell that fails is reported
  with its reason, and the others go on.

  Args:
    request: what to compare.
    command_fn: the command that runs a config alone.
    progress_fn: called now and then.
    should_stop: polled; True stops all runs.
  """
  _check(request)
  settings = folders.settings(request.config, davis_measures=request.has_davis)
  if not folders.inspect(request.output, settings):
    spec.check_used(request.config, request.streams[0], request.systems)
  with workdir.claim(request.output, "output"):
    pool = Pool(request.num_jobs)
    try:
      checked = _check_streams(request, pool, should_stop)
      if checked is None:
        return None
      folders.create(request.output, settings)
      plans = _plan(request, checked)
      return _run_cells(
        request, plans, pool, command_fn, progress_fn, should_stop
      )
    finally:
      pool.close()


def compare_systems(
  systems: Sequence[str],
  streams: Sequence[str],
  output: pathlib.Path | str,
  config: RunConfig = RunConfig(overlay=False),  # noqa: B008, a constant
  *,
  num_seeds: int = 1,
  num_jobs: int = 1,
) -> list[Cell]:
  """Runs several systems over the same streams; a cell for each run.

  What `python -m experiments.compare` does; the folder can be resumed.

  Args:
    systems: texts such as `jit:a_thresh=0.7` or `flow:slow`.
    streams: addresses, `URI[@Category]`.
    output: the folder for the results.
    config: the flags of all runs.
    num_seeds: seeds from that of the config on.
    num_jobs: processes.
  """
  request = Request(
    config=config,
    streams=tuple(spec.parse_streams(streams)),
    systems=tuple(spec.parse_systems(",".join(systems))),
    seeds=tuple(range(config.seed, config.seed + num_seeds)),
    output=folders.expand(str(output)),
    num_jobs=num_jobs,
  )
  command = lambda one: config_lib.command("experiments.online_distill", one)
  return run(request, command) or []


def _check(request):
  """Raises a UserError for errors that need no stream to be found."""
  if not 1 <= request.num_jobs <= _MAX_JOBS:
    raise UserError(f"--jobs={request.num_jobs}: from 1 to {_MAX_JOBS}")
  sizes = (request.streams, request.systems, request.seeds)
  num_cells = math.prod(map(len, sizes))
  if not 1 <= num_cells <= _MAX_CELLS:
    raise UserError(
      f"{num_cells} runs are asked for; a comparison has 1 to {_MAX_CELLS}"
    )
  seen: dict[RunConfig, spec.SystemEntry] = {}
  for system in request.systems:
    for seed in (request.seeds[0], request.seeds[-1]):
      try:
        config = _config(request, request.streams[0], system, seed)
        config_lib.check(config)
      except UserError as error:
        raise UserError(f"{system.label}: {error}") from None
    same = seen.setdefault(dataclasses.replace(config, workdir=""), system)
    if same is not system:
      raise UserError(
        f"--systems: {system.label!r} is the same as {same.label!r}"
      )


def _config(request, stream, system, seed):
  path = request.output / folders.cell(stream, system, seed)
  return spec.config_of(request.config, stream, system, seed, path)


def _check_streams(request, pool, should_stop):
  """The workers' findings about each stream; None if they were stopped."""
  pairs = list(itertools.product(request.systems, request.seeds))
  tasks = [
    Check(
      tuple(_config(request, stream, *pair) for pair in pairs),
      tuple(system.label for system, _ in pairs),
      request.has_davis,
    )
    for stream in request.streams
  ]
  replies = pool.run(tasks, should_stop=should_stop)
  if any(isinstance(reply, Stopped) for reply in replies):
    return None
  for stream, reply in zip(request.streams, replies, strict=True):
    if isinstance(reply, Refused):
      raise UserError(f"{stream.name}: {reply.message}")
    if isinstance(reply, Failed):
      raise RuntimeError(f"{stream.name}: {reply.message}")
  return replies


class _Plan(NamedTuple):
  """A cell before it is run."""

  cell: Cell
  length: int | None  # in frames
  is_done: bool


def _plan(request, checked):
  """All cells, by the workers' findings."""
  plans = []
  for stream, found in zip(request.streams, checked, strict=True):
    pairs = itertools.product(request.systems, request.seeds)
    for pair, is_finished in zip(pairs, found.are_finished, strict=True):
      folder = folders.cell(stream, *pair)
      is_done = is_finished and numbers.are_measured(
        request.output / folder, request.wanted(pair[0])
      )
      plans.append(
        _Plan(Cell(stream, *pair, folder), found.num_frames, is_done)
      )
  return plans


def _run_cells(
  request, plans, pool, command_fn, progress_fn, should_stop
) -> list[Cell] | None:
  """Every cell with its numbers; None where the workers were stopped."""
  left = [i for i, plan in enumerate(plans) if not plan.is_done]
  tasks = []
  for index in left:
    stream, system, seed, *_ = plans[index].cell
    config = _config(request, stream, system, seed)
    tasks.append(Run(config, command_fn(config), request.wanted(system)))
  counter = _Counter(plans, left, progress_fn)
  replies = pool.run(tasks, note_fn=counter, should_stop=should_stop)
  if any(isinstance(reply, Stopped) for reply in replies):
    return None
  replies = dict(zip(left, replies, strict=True))
  return [
    _with_result(request, plan.cell, replies.get(i, Ran()))
    for i, plan in enumerate(plans)
  ]


def _with_result(request, cell, reply):
  if not isinstance(reply, Ran):
    return cell._replace(problem=reply.message)
  path, wanted = request.output / cell.folder, request.wanted(cell.system)
  return cell._replace(numbers=numbers.read(path, wanted))


class _Counter:
  """Adds up the frames of all cells and reports each that ends."""

  def __init__(self, plans, left, progress_fn):
    self._plans, self._left, self._progress_fn = plans, left, progress_fn
    lengths = [plan.length for plan in plans]
    self._total = None if None in lengths else sum(lengths)
    self._frames = {i: p.length for i, p in enumerate(plans) if p.is_done}
    self._num_done = len(self._frames)
    self._tell("")

  def __call__(self, task: int, message: Any) -> None:
    index = self._left[task]
    if isinstance(message, Moved):
      self._frames[index] = message.num_frames
      return self._tell("")
    plan = self._plans[index]
    words = "done" if isinstance(message, Ran) else "stopped"
    words = getattr(message, "message", words)
    if not isinstance(message, Stopped):
      self._frames[index] = plan.length
      self._num_done += 1
    stream, system, seed, *_ = plan.cell
    self._tell(f"{stream.name}, {system.label}, seed {seed}: {words}")

  def _tell(self, news):
    frames = sum(filter(None, self._frames.values()))
    counts = self._num_done, len(self._plans)
    self._progress_fn(Progress(frames, self._total, *counts, news))
