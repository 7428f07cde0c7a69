"""Sweeps: a recorded run with other constants, by `vmap` over `scan_stream`.

A trial is one combination of the swept constants. All trials get the same
frames and recorded labels, a few frames at a time, so that a long stream needs
no more memory than a short one.
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

from ojd import costs as costs_lib
from ojd import distill, metrics, systems
from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.run import build, recorded_run
from ojd.run import config as config_lib
from ojd.run.config import RunConfig
from ojd.run.recorded_run import RecordedRun
from ojd.streams import prefetch
from ojd.tasks import segmentation
from ojd.teachers import labelers
from ojd.types import IGNORE, Costs, Labels

# Constants that can be traced, and their types.
NAMES = {
  "learning_rate": float,
  "a_thresh": float,
  **dict.fromkeys((*config_lib.CONSTANTS[1:], "stride", "seed"), int),
}
MAX_COMBINATIONS = 1024
_MAX_TRIALS = 16  # at once; each needs memory for a student and its gradients
_CHUNK = 16  # frames
_AXIS = "trials"


class Trial(NamedTuple):
  """The result of one combination."""

  values: dict[str, float | int]
  miou: float
  num_frames: int
  num_keys: int
  num_updates: int
  costs: Costs = Costs()  # of the method

  @property
  def key_fraction(self) -> float:
    """The fraction of key frames."""
    return self.num_keys / self.num_frames

  @property
  def speedup(self) -> float:
    """The speed-up in the paper's cost model."""
    return costs_lib.paper_speedup(
      self.num_frames, self.num_keys, self.num_updates, self.costs
    )


def parse(text: str) -> dict[str, list[Any]]:
  """Reads `learning_rate=0.001,0.01;a_thresh=0.7,0.8`."""
  grid: dict[str, list[Any]] = {}
  for part in text.split(";"):
    name, equals, values = (piece.strip() for piece in part.partition("="))
    if not equals or name not in NAMES:
      raise UserError(
        f"--sweep: {part!r} is not NAME=VALUE,VALUE,... with NAME one of "
        f"{', '.join(NAMES)}"
      )
    if name in grid:
      raise UserError(f"--sweep: {name} is given twice")
    try:
      grid[name] = [NAMES[name](value) for value in values.split(",")]
    except ValueError:
      raise UserError(f"--sweep: {values!r} are not values of {name}") from None
    if len(set(grid[name])) < len(grid[name]):
      raise UserError(f"--sweep: {name} has the same value twice")
  if math.prod(map(len, grid.values())) > MAX_COMBINATIONS:
    raise UserError(f"--sweep: more than {MAX_COMBINATIONS} combinations")
  return grid


def combinations(
  grid: dict[str, list[Any]], config: RunConfig
) -> list[dict[str, Any]]:
  """Every combination of the grid; a UserError if one is invalid."""
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
    run: from `recorded_run.read`.
    grid: from `parse`.
    from_frame: where all trials start, with the student that the run had there;
      None for the beginning of the run.
    to_frame: the last frame; None for the run's last.
    progress_fn: called with the frames done and their total, over all trials.
    note_fn: called with single lines about what is unusual.
  """
  first, end = recorded_run.frame_range(run, from_frame, to_frame)
  _check(run, grid, first)
  wanted = combinations(grid, run.config)
  job = recorded_run.open_job(run)
  state = None  # each trial makes its own
  if first > 0:
    _, state = recorded_run.state_before(run, first, note_fn)
  programs = _compile(job, state)
  num_turns = -(-len(wanted) // _MAX_TRIALS)
  num_trials = -(-len(wanted) // num_turns)
  trials = []
  for turn in range(num_turns):
    part = wanted[turn * num_trials : (turn + 1) * num_trials]
    done = lambda n, turn=turn: progress_fn(
      turn * (end - first) + n, num_turns * (end - first)
    )
    # A last turn of fewer trials is filled up, to use the same program.
    full = part + part[:1] * (num_trials - len(part))
    frames = _frames(run, job, first, end, note_fn if not turn else None)
    clock = run.num_seen(first)
    trials += _run_trials(job, programs, clock, full, frames, done)[: len(part)]
  return trials


def _check(run, grid, first):
  """Raises a UserError if a constant cannot be swept."""
  system = config_lib.bound_system(run.config)
  update = config_lib.bound_update(run.config)
  if "refresh_every" in system.options:
    raise UserError(  # under vmap every trial computes both speeds
      f"--sweep: --system={run.config.system} has a student of two speeds; "
      "sweep a run of its base, such as jit"
    )
  known = {"seed"} | system.options.keys()
  known |= update.options.keys() if update else set()
  for name in grid:
    if name not in known:
      raise UserError(
        f"--sweep: {name} has no effect on --system={run.config.system}"
      )
  if first > 0 and "seed" in grid:
    raise UserError("--sweep: seed has an effect only at the start of a run")


class _Frame(NamedTuple):
  frame: np.ndarray
  labels: Labels
  expected: np.ndarray  # [H, W] uint8, the reference of the evaluation


def _frames(run, job, first, end, note_fn) -> Iterator[_Frame]:
  """Yields labeled frames; the teacher labels those that the log lacks."""
  known = recorded_run.LabelsByFrame(run.log)
  labeler = labelers.Cached(
    known.get, functools.partial(build.open_labeler, job)
  )
  wanted = [row["t"] for row in run.rows if first <= row["t"] < end]
  num_known = sum(t in known for t in wanted)
  if num_known < len(wanted) and note_fn:
    note_fn(
      f"the log has labels of {num_known} of {len(wanted)} frames; "
      f"--teacher={run.config.teacher} labels the others"
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
        if expected is None:  # this frame has no truth
          expected = np.full(sample.frame.shape[:2], IGNORE, np.uint8)
      yield _Frame(sample.frame, answer.labels, expected)


def _compile(job, state):
  """Two programs for all trials of a turn; they take the constants by name.

  The first makes the states of the trials, with leaves [trials, ...]: copies of
  `state`, or new states if it is None. The second runs `scan_stream` on all.
  """
  student = build.make_student(job.config, job.groups)
  spec, seed = job.stream.spec, job.config.seed
  task = segmentation(len(job.groups.names))

  def make_system(values):
    """The system of the job with traced constants."""
    return build.make_system(job.config, student, spec, values)

  def init(values):
    if state is not None:
      return state
    frame = np.zeros((spec.height, spec.width, 3), np.uint8)
    key = jax.random.key(values.get("seed", seed))
    return make_system(values).init(key, frame)

  def advance(values, state, frames, labels, clock):
    return distill.scan_stream(
      *(make_system(values), state, frames, labels, clock),
      axis_name=_AXIS,
      without_weight=task.without_weight,
    )

  advance = jax.vmap(advance, (0, 0, None, None, None), axis_name=_AXIS)
  return jax.jit(jax.vmap(init)), jax.jit(advance, donate_argnums=1)


def _run_trials(
  job, programs, clock, wanted, frames, progress_fn
) -> list[Trial]:
  """Runs all combinations over all frames, a chunk at a time."""
  columns = {
    name: jnp.array([values[name] for values in wanted]) for name in wanted[0]
  }
  num_classes, size = len(job.groups.names), len(wanted)
  (init, advance), done = programs, 0
  state = init(columns)
  confusion = np.zeros((size, num_classes, num_classes), np.int64)
  num_keys, num_updates = np.zeros(size, int), np.zeros(size, int)
  while chunk := list(itertools.islice(frames, _CHUNK)):
    count = len(chunk)
    # Copies of the last frame fill the chunk; they do not count.
    padded = chunk + chunk[-1:] * (_CHUNK - count)
    images = np.stack([x.frame for x in padded])
    stack = lambda *parts: np.stack(parts)
    labels = jax.tree.map(stack, *(x.labels for x in padded))
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
