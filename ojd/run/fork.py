"""Another course from a moment of a run: the same past, other flags.

The fork is a run of its own in a folder of its own. It begins with the student
of its parent and learns from what its parent's teacher said; its own teacher is
asked about other frames only.
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

# What the labels and the student at the fork are of.
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
  """Where a run branches off, and from what."""

  parent: RecordedRun
  t: int  # the fork's first frame


def child_config(parent: RunConfig, given: dict[str, Any]) -> RunConfig:
  """The parent's flags with others in their place.

  Args:
    parent: its flags.
    given: flags of the fork by name, its workdir among them.
  """
  if parent.link or given.get("link"):
    raise UserError("--link: a run over one has no forks and is none")
  for name in _INHERITED:
    same = teachers.without_device if name == "teacher" else lambda x: x
    if name in given and same(given[name]) != same(getattr(parent, name)):
      raise UserError(
        f"--{name}: a fork has its parent's, {getattr(parent, name)!r}"
      )
  # Of another gradient step the parent's rate would be wrong by far.
  if given.get("update", parent.update) != parent.update:
    given = {"learning_rate": None} | given
  child = dataclasses.replace(parent, **given)
  if "system" in given:
    child = config_lib.without_unused(child, kept=given.keys())
  return child


def open_fork(path: pathlib.Path, t: int) -> Fork:
  """The moment before frame t of a run; a UserError where it has none."""
  parent = recorded_run.read(path)
  if not parent.first <= t <= parent.end:
    raise recorded_run.range_error("from_frame", t, parent)
  return Fork(parent, t)


def describe(fork: Fork) -> dict[str, Any]:
  """What config.json says of the fork."""
  return {
    "parent": str(fork.parent.path.resolve()),
    "from_frame": fork.t,
    "num_before": fork.parent.num_seen(fork.t),
    "flags": dataclasses.asdict(fork.parent.config),
  }


def write_parent(fork: Fork, path: pathlib.Path) -> None:
  """Keeps the parent's metrics beside the fork's, for its report."""
  lines = "".join(json.dumps(row) + "\n" for row in fork.parent.rows)
  (path / run_files.PARENT_METRICS).write_text(lines)


def make_job(fork: Fork, config: RunConfig) -> build.Job:
  """The fork's stream and system; its teacher is not opened."""
  if build.method_of(config).prepare is not None:
    raise UserError(
      f"--system={config.system} trains its own student beforehand, and a fork "
      "goes on with its parent's; give another --system"
    )
  return recorded_run.open_job(fork.parent, config)


def make_labeler(
  fork: Fork, job: build.Job
) -> tuple[labelers.Cached, Callable[[int], bool]]:
  """Who labels the fork's frames, and whether a frame is known already."""
  known = recorded_run.LabelsByFrame(fork.parent.log)
  opened = lambda: build.open_labeler(job)
  return labelers.Cached(known.get, opened), known.__contains__


def first_snapshot(
  fork: Fork, job: build.Job, note_fn: Callable[[str], None]
) -> checkpoint_lib.Snapshot:
  """The beginning of the fork: its parent's student in its own system."""
  _, state = recorded_run.state_before(fork.parent, fork.t, note_fn)
  state, renewed = carry_over(state, fork.parent.config, job)
  for name in renewed:
    note_fn(f"the fork's {name} starts anew")
  return _snapshot(fork, job, state)


def _snapshot(fork, job, state):
  """The first snapshot of a fork, whose counts begin at 0."""
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
  """The parent's state in the system of another job.

  The parameters and the clock must fit. What else the state has is kept part by
  part, where it is of the same kind and the flags that it follows are the same.

  Returns:
    The state, and the names of the parts that start anew.
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
  """Names of leaves by the field of the state that they are in."""
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
