"""Trials of a run with other constants, by `vmap` over `scan_stream`.

A trial is one combination of the constants swept. All trials see the same
frames and the labels on record, a few frames at a time, so that a long stream
needs no more memory than a short one.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ojd import distill, metrics, systems
from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.run import build, recorded_run, stats
from ojd.run import config as config_lib
from ojd.run.config import RunConfig
from ojd.run.recorded_run import RecordedRun
from ojd.streams import prefetch
from ojd.tasks import segmentation
from ojd.teachers import labelers
from ojd.types import IGNORE, Costs, Labels

# Constants that may be traced, and their types.
NAMES = {
  "learning_rate": float,
  "a_thresh": float,
  **dict.fromkeys((*config_lib.CONSTANTS[1:], "stride", "seed"), int),
}
MAX_COMBINATIONS = 1024
_MAX_TRIALS = 16  # at once; each has a student and its gradients
_CHUNK = 16  # frames
_AXIS = "trials"


class Trial(NamedTuple):
  """What came of one combination."""

  values: dict[str, float | int]
  miou: float
  num_frames: int
  num_keys: int
  num_updates: int
  costs: Costs = Costs()  # of the method

  @property
  def speedup(self) -> float:
    """By the paper's cost model."""
    return stats.paper_speedup(
      self.num_frames, self.num_keys, self.num_updates, self.costs
    )


def parse(text: str) -> dict[str, list[Any]]:
  """Reads `learning_rate=0.001,0.01;a_thresh=0.7,0.8`."""
  grid: dict[str, list[Any]] = {}
  for part in text.split(";"):
    name, equals, values = (piece.strip() for piece in part.partition("="))
    if not equals or name not in NAMES:
      raise UserError(
        f"--sweep: {part!r} is not NAME=VALUE,VALUE,... with a name of "
        f"{', '.join(NAMES)}"
      )
    if name in grid:
      raise UserError(f"--sweep: {name} is there twice")
    try:
      grid[name] = [NAMES[name](value) for value in values.split(",")]
    except ValueError:
      raise UserError(f"--sweep: {values!r} are no values of {name}") from None
    if len(set(grid[name])) < len(grid[name]):
      raise UserError(f"--sweep: {name} has a value twice")
  if math.prod(map(len, grid.values())) > MAX_COMBINATIONS:
    raise UserError(f"--sweep: more than {MAX_COMBINATIONS} combinations")
  return grid


def combinations(
  grid: dict[str, list[Any]], config: RunConfig
) -> list[dict[str, Any]]:
  """Every combination; a UserError where a run could not have it."""
  found = [
    dict(zip(grid, values, strict=True))
    for values in itertools.product(*grid.values())
  ]
  for values in found:
    trial = dataclasses.replace(config, init="random")
    for name, value in values.items():
      trial = config_lib.with_option(trial, name, value)
    config_lib.check(trial)
  return found


def sweep(
  run: RecordedRun,
  grid: dict[str, list[Any]],
  from_frame: int | None = None,
  to_frame: int | None = None,
  *,
  progress_fn: Callable[[int, int], None] = lambda done, total: None,
  note_fn: Callable[[str], None] = lambda note: None,
) -> list[Trial]:
  """Runs every combination over the frames of a run.

  Args:
    run: of `recorded_run.read`.
    grid: of `parse`.
    from_frame: where all begin, with the run's student as it was; None for the
      run's own beginning.
    to_frame: the last frame; None for the run's last.
    progress_fn: called with frames done and to be done, of all combinations.
    note_fn: called with a line about what is unusual.
  """
  first, end = recorded_run.frame_range(run, from_frame, to_frame)
  system = config_lib.bound_system(run.config)
  update = config_lib.bound_update(run.config)
  if "refresh_every" in system.options:
    # Side by side every trial would compute both speeds on each frame.
    raise UserError(
      f"--sweep: --system={run.config.system} has a student of two speeds; "
      "sweep a run of its base, as jit"
    )
  for name in grid:
    known = {"seed"} | system.options.keys()
    if name not in known | (update.options.keys() if update else set()):
      raise UserError(
        f"--sweep: {name} makes no difference to --system={run.config.system}"
      )
  if first > 0 and "seed" in grid:
    raise UserError("--sweep: seed matters at the beginning of a run only")
  wanted = combinations(grid, run.config)
  job = recorded_run.open_job(run)
  student = build.make_student(job.config, job.groups)
  make_system = functools.partial(_make_system, job, student)
  state = None
  if first > 0:
    _, state = recorded_run.state_before(run, first, note_fn)
  begin = _Beginning(state, run.num_seen(first))
  num_turns = -(-len(wanted) // _MAX_TRIALS)
  num_trials = -(-len(wanted) // num_turns)
  trials = []
  for turn in range(num_turns):
    part = wanted[turn * num_trials : (turn + 1) * num_trials]
    done = lambda n, turn=turn: progress_fn(
      turn * (end - first) + n, num_turns * (end - first)
    )
    # The last turn may be short of trials, but is not compiled again for it.
    full = part + part[:1] * (num_trials - len(part))
    frames = _frames(run, job, first, end, note_fn if not turn else None)
    trials += _run_trials(job, make_system, begin, full, frames, done)[
      : len(part)
    ]
  return trials


class _Beginning(NamedTuple):
  state: distill.State | None  # None: each trial makes its own
  clock: int  # frames that it has seen


class _Frame(NamedTuple):
  t: int
  frame: np.ndarray
  labels: Labels
  expected: np.ndarray  # [H, W] uint8, what the student is judged by


def _frames(run, job, first, end, note_fn) -> Iterator[_Frame]:
  """The frames with their labels, those that the log lacks by the teacher."""
  known = recorded_run.LabelsByFrame(run.log)
  labeler = labelers.Cached(
    known.get, functools.partial(build.open_labeler, job)
  )
  wanted = [row["t"] for row in run.rows if first <= row["t"] < end]
  num_known = sum(t in known for t in wanted)
  if num_known < len(wanted) and note_fn:
    note_fn(
      f"the log holds labels of {num_known} of {len(wanted)} frames; "
      f"--teacher={run.config.teacher} is asked about the others"
    )
  samples = prefetch.readable(job.stream.read(first), end)
  with contextlib.closing(labeler), contextlib.closing(samples):
    for sample in samples:
      labeler.ask(sample)
      answer = labeler.answer(wait=True)
      if answer.labels is None:
        raise RuntimeError(
          f"no labels of frame {sample.t}: {answer.problem or 'no answer'}"
        )
      expected = np.asarray(answer.labels.classes)
      if job.truth_groups is not None:
        expected = labels_lib.regrouped(job.truth_groups, sample.truth)
        if expected is None:  # a frame without any truth
          expected = np.full(sample.frame.shape[:2], IGNORE, np.uint8)
      yield _Frame(sample.t, sample.frame, answer.labels, expected)


def _run_trials(
  job, make_system, begin, wanted, frames, progress_fn
) -> list[Trial]:
  """All combinations over all frames, a chunk at a time."""
  columns = {
    name: jnp.array([values[name] for values in wanted]) for name in wanted[0]
  }
  num_classes, size = len(job.groups.names), len(wanted)
  task = segmentation(num_classes)
  advance = jax.jit(
    _advance(make_system, task.without_weight), donate_argnums=1
  )
  state = _first_states(job, make_system, begin, columns)
  clock, done = begin.clock, 0
  confusion = np.zeros((size, num_classes, num_classes), np.int64)
  num_keys, num_updates = np.zeros(size, int), np.zeros(size, int)
  while chunk := list(itertools.islice(frames, _CHUNK)):
    count = len(chunk)
    # What follows the last frame is a copy of it, and counts for nothing.
    padded = chunk + chunk[-1:] * (_CHUNK - count)
    images = np.stack([x.frame for x in padded])
    labels = Labels(
      np.stack([np.asarray(x.labels.classes) for x in padded]),
      np.stack([np.asarray(x.labels.weights) for x in padded]),
    )
    state, (classes, infos) = advance(columns, state, images, labels, clock)
    classes = np.asarray(classes)
    for trial, i in itertools.product(range(size), range(count)):
      confusion[trial] += metrics.confusion_matrix(
        chunk[i].expected, classes[trial, i], num_classes
      )
    num_keys += np.asarray(infos.is_key)[:, :count].sum(1)
    num_updates += np.asarray(infos.num_updates)[:, :count].sum(1)
    clock, done = clock + count, done + count
    progress_fn(done)
  if not done:
    raise RuntimeError("no frame of the stream could be read")
  return [
    Trial(
      values,
      metrics.run_miou(confusion[i]),
      done,
      int(num_keys[i]),
      int(num_updates[i]),
      systems.costs_of(config_lib.bound_system(job.config)),
    )
    for i, values in enumerate(wanted)
  ]


def _advance(make_system, without_weight):
  """(columns, states, frames, labels, clock) -> states, (classes, infos)."""

  def one(values, state, frames, labels, clock):
    return distill.scan_stream(
      *(make_system(values), state, frames, labels, clock),
      axis_name=_AXIS,
      without_weight=without_weight,
    )

  return jax.vmap(one, (0, 0, None, None, None), axis_name=_AXIS)


def _first_states(job, make_system, begin, columns):
  """The state of every trial, [trials, ...] each leaf."""
  spec, seed = job.stream.spec, job.config.seed
  frame = np.zeros((spec.height, spec.width, 3), np.uint8)

  def one(values):
    if begin.state is not None:
      return begin.state
    key = jax.random.key(values.get("seed", seed))
    return make_system(values).init(key, frame)

  size = len(next(iter(columns.values())))
  return jax.jit(jax.vmap(one, axis_size=size))(columns)


def _make_system(job, student, values):
  """A job's system with traced constants in the place of its own."""
  return build.make_system(job.config, student, job.stream.spec, values)
