"""Forks: a run that branches off from another one, with other flags.

A fork has its own workdir. It starts with the student of its parent and learns
from the teacher's labels that the parent recorded. It asks its own teacher only
about frames that the parent has no labels for.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd.distill import State
from ojd.errors import UserError
from ojd.formats import run_files
from ojd.run import (
  build,
  recorded_run,
  state_arrays,
  stats,
  trajectory,
)
from ojd.run import checkpoint as checkpoint_lib
from ojd.run import config as config_lib
from ojd.run.config import RunConfig
from ojd.run.recorded_run import RecordedRun
from ojd.teachers import base as teachers
from ojd.teachers import labelers

# The labels and the student at the fork depend on these flags.
_INHERITED = (
  *("stream", "start_frame", "every", "height", "width", "classes"),
  *("seed", "model", "init"),
  "teacher",
)
_OF_SCHEDULE = (
  *("base", "stride", "delta_min", "delta_max", "stride_scale"),
  *("sampling_rate", "train_period", "horizon", "adaptive_sampling"),
  *("adaptive_training", "one_time"),
)


class Fork(NamedTuple):
  """The parent of a run, and the frame where the run branches off."""

  parent: RecordedRun
  t: int  # the fork's first frame


def child_config(parent: RunConfig, given: dict[str, Any]) -> RunConfig:
  """The parent's flags, with those that the fork overrides.

  Args:
    parent: flags of the parent.
    given: flags of the fork by name, including its workdir.
  """
  if parent.link or given.get("link"):
    raise UserError("--link: a run with --link cannot be forked, or be a fork")
  for name in _INHERITED:
    same = teachers.without_device if name == "teacher" else lambda x: x
    if name in given and same(given[name]) != same(getattr(parent, name)):
      raise UserError(
        f"--{name}: a fork keeps its parent's, {getattr(parent, name)!r}"
      )
  # The parent's learning rate does not suit another gradient step.
  if given.get("update", parent.update) != parent.update:
    given = {"learning_rate": None} | given
  child = dataclasses.replace(parent, **given)
  if "system" in given:
    child = config_lib.without_unused(child, kept=given.keys())
  return child


def open_fork(path: pathlib.Path, t: int) -> Fork:
  """Opens a run to fork it before frame t; a UserError if it lacks frame t."""
  parent = recorded_run.read(path)
  if not parent.first <= t <= parent.end:
    raise recorded_run.range_error("from_frame", t, parent)
  return Fork(parent, t)


def describe(fork: Fork) -> dict[str, Any]:
  """The fork's entry in config.json."""
  return {
    "parent": str(fork.parent.path.resolve()),
    "from_frame": fork.t,
    "num_before": fork.parent.num_seen(fork.t),
    "flags": dataclasses.asdict(fork.parent.config),
  }


def write_parent(fork: Fork, path: pathlib.Path) -> None:
  """Copies the parent's metrics into the fork's workdir, for the report."""
  lines = "".join(json.dumps(row) + "\n" for row in fork.parent.rows)
  (path / run_files.PARENT_METRICS).write_text(lines)


def make_job(fork: Fork, config: RunConfig) -> build.Job:
  """Builds the fork's stream and system, without opening its teacher."""
  if build.method_of(config).prepare is not None:
    raise UserError(
      f"--system={config.system} trains its own student before the run, but a "
      "fork starts with its parent's; give another --system"
    )
  return recorded_run.open_job(fork.parent, config)


def make_labeler(
  fork: Fork, job: build.Job
) -> tuple[labelers.Cached, Callable[[int], bool]]:
  """The fork's labeler, and whether the labels of a frame are on record."""
  known = recorded_run.LabelsByFrame(fork.parent.log)
  opened = lambda: build.open_labeler(job)
  return labelers.Cached(known.get, opened), known.__contains__


def first_snapshot(
  fork: Fork, job: build.Job, note_fn: Callable[[str], None]
) -> checkpoint_lib.Snapshot:
  """The first snapshot of a fork: its parent's student in its own system."""
  _, state = recorded_run.state_before(fork.parent, fork.t, note_fn)
  state, renewed = carry_over(state, fork.parent.config, job)
  for name in renewed:
    note_fn(f"the fork starts with a new {name}")
  return _snapshot(fork, job, state)


def _snapshot(fork, job, state):
  """The snapshot of a state before frame t of the parent; counts start at 0."""
  counts = stats.RunStats.empty(len(job.groups.names))
  counts.first_t = fork.t
  counts.num_before = fork.parent.num_seen(fork.t)
  past = [row for row in fork.parent.rows if row["t"] < fork.t]
  counts.stride = past[-1].get("stride", 0) if past else 0
  keys = [
    t
    for t, kind in fork.parent.log.records
    if kind == trajectory.KEY and t < fork.t
  ]
  reference, reference_t = None, None
  if keys:
    record = fork.parent.log.find(trajectory.KEY, keys[-1])
    reference = np.asarray(record.labels().classes)
    reference_t = record.frame_t
  return checkpoint_lib.Snapshot(
    t=fork.t,
    state=state,
    reference=reference,
    reference_t=reference_t,
    stats=counts,
    seconds={},
    counts={},
  )


def carry_over(
  state: State, parent: RunConfig, job: build.Job
) -> tuple[State, list[str]]:
  """Transfers the parent's state to the system of another job.

  The parameters and the clock must fit. Every other part of the state is kept
  if it has the same shape and the flags that it depends on are the same.

  Returns:
    The state, and the names of the parts that were initialized again.
  """
  there = state_arrays.by_name(state)
  spec = job.stream.spec
  frame = np.zeros((spec.height, spec.width, 3), np.uint8)
  seed = jax.random.key(job.config.seed)
  fresh = jax.jit(job.system.init)(seed, frame)
  here = state_arrays.by_name(fresh)
  parts = _parts(here)
  for name in ("params", "t"):
    state_arrays.check_specs(
      "the parent",
      state_arrays.specs({n: there[n] for n in _parts(there).get(name, ())}),
      state_arrays.specs({n: here[n] for n in parts.get(name, ())}),
    )
  kept, renewed = dict(here), []
  for part, names in parts.items():
    if _is_kept(part, parent, job.config) and _fits(there, here, names):
      kept |= {name: there[name] for name in names}
    else:
      renewed.append(part)
  leaves = [kept[name] for name in here]  # in the order of the tree
  return jax.tree.unflatten(jax.tree.structure(fresh), leaves), renewed


def _parts(named):
  """Names of leaves, grouped by the field of the state."""
  parts: dict[str, list[str]] = {}
  for name in named:
    parts.setdefault(name.partition(".")[0], []).append(name)
  return parts


def _is_kept(part, parent, child):
  if part in ("params", "t"):
    return True
  if part == "opt_state":
    return parent.update == child.update
  there, here = map(config_lib.bound_system, (parent, child))
  names = [name for name in _OF_SCHEDULE if name in here.options]
  is_same = lambda name: here.options[name] == there.options.get(name)
  return here.name == there.name and all(map(is_same, names))


def _fits(there, here, names):
  specs = state_arrays.specs
  return all(
    name in there and specs({name: there[name]}) == specs({name: here[name]})
    for name in names
  )
