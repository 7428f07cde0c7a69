"""Figures of what a run keeps of itself: `benchmark --what=checkpoint`."""

import dataclasses
import functools
import pathlib
import tempfile
import time

import jax
import numpy as np

from ojd.run import (
  checkpoint,
  job,
  measure,
  recorded_run,
  replay,
  runner,
  stats,
  trajectory,
  workdir,
)
from ojd.run.config import RunConfig

_CONFIG = RunConfig(
  stream="synthetic:street",
  teacher="ground_truth",
  init="random",
  overlay=False,
)


def _config(size, repeats, **flags):
  flags |= {"height": size[0], "width": size[1], "num_frames": 40 * repeats}
  return dataclasses.replace(_CONFIG, **flags)


def share(size, repeats):
  """A run's time for checkpoints against the whole of its time."""
  made, pairs = job.make_job(_config(size, repeats)), []
  abstract = checkpoint.abstract(made)
  compiled = job.compile_system(made.system, *size, seed=0)
  for _ in range(max(2, repeats // 2)):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder)
      loop = runner.Loop(
        *(made, path),
        compiled=compiled,
        checkpointer=checkpoint.Checkpointer(path, abstract, {}),
      )
      loop.run()
      stages = loop.stages
      spent = 1e3 * stages.seconds["checkpoint"]
      pairs.append((spent, 1e3 * stages.seconds_of_method()))
  count = stages.counts["checkpoint"]
  note = f"{count} checkpoints and all of a run, {size[0]}x{size[1]}"
  return measure.figure("checkpoint_share", np.array(pairs), note)


def restore(size, repeats):
  """Reading a checkpoint against writing it, both to the end."""
  made = job.make_job(_config(size, repeats))
  abstract = checkpoint.abstract(made)
  state = job.compile_system(made.system, *size, seed=0).init()
  # A momentum of zeros would be no bytes at all.
  rng = np.random.default_rng(0)
  momentum = jax.tree.map(
    lambda x: rng.standard_normal(x.shape, x.dtype), state.opt_state
  )
  state = state._replace(opt_state=momentum)
  pairs = []
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    for t in range(repeats + 1):
      (path / workdir.METRICS).write_text("{}\n" * t)
      counts = stats.RunStats.empty(len(made.groups.names))
      snapshot = checkpoint.Snapshot(t, state, None, None, counts, {}, {})
      writer = checkpoint.Checkpointer(path, abstract, {})
      start = time.perf_counter()
      writer.keep(snapshot, lambda: None)
      writer.close()
      middle = time.perf_counter()
      found, _ = checkpoint.Checkpointer(path, abstract, {}).latest()
      jax.block_until_ready(found.state)
      end = time.perf_counter()
      pairs.append((1e3 * (end - middle), 1e3 * (middle - start)))
    folders = (path / workdir.CHECKPOINTS / str(t)).rglob("*")
    num_bytes = sum(x.stat().st_size for x in folders if x.is_file())
  note = f"{num_bytes / 1e6:.1f} MB read and written, {size[0]}x{size[1]}"
  # The first imports what it takes.
  return measure.figure("restore_vs_save", np.array(pairs[1:]), note)


@functools.cache
def _recorded(size, repeats):
  """A run with a teacher that takes its time; its folder lives as long."""
  folder = tempfile.TemporaryDirectory()
  config = _config(
    size, repeats, teacher="mask_rcnn_tiny", workdir=folder.name, eval_every=0
  )
  runner.run(config, "")
  return folder, recorded_run.read(pathlib.Path(folder.name))


def trajectory_share(size, repeats):
  """The log's bytes per key frame against those of its class map."""
  _, run = _recorded(size, repeats)
  keys = [r for r in run.log if r.kind == trajectory.KEY]
  log = run.path / workdir.TRAJECTORY / trajectory.LOG
  each = log.stat().st_size / len(keys)
  labels = np.mean([len(record.packed) for record in keys])
  return measure.Figure(
    "trajectory_share",
    round(each / (size[0] * size[1]), 4),
    *(None, None, 0.0),
    f"{each:.0f} bytes a key frame, {labels:.0f} of them labels, and "
    f"{size[0] * size[1]} of a class map",
  )


def replayed(size, repeats):
  """Telling a run again against the run itself, without compiling."""
  _, run = _recorded(size, repeats)
  pairs = []
  for _ in range(max(2, repeats // 2)):
    found = replay.replay(run)
    pairs.append((1e3 * found.seconds, 1e3 * found.seconds_live))
  equal = "bit-equal" if found.is_equal else "NOT equal"
  note = f"{found.end} frames told again, {equal}, {size[0]}x{size[1]}"
  return measure.figure("replay_vs_live", np.array(pairs), note)


ALL = (share, restore, trajectory_share, replayed)
