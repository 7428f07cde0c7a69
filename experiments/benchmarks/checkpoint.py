"""What a run writes to be resumed and replayed.

checkpoint_share
    time that the loop spends on checkpoints, over that of the whole run, with
    the default interval (below 0.01 at 192x320)
restore_vs_save
    reading a checkpoint over writing one
trajectory_share
    bytes of the trajectory per key frame over a class map (below 0.02)
replay_vs_live
    replaying a run over the run itself (below 1)
"""

import dataclasses
import functools
import pathlib
import tempfile
import time

import jax
import numpy as np

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Case
from ojd.run import (
  build,
  checkpoint,
  recorded_run,
  replay,
  runner,
  stats,
  trajectory,
  workdir,
)
from ojd.run.config import RunConfig
from ojd.run.loop import Loop

_CONFIG = RunConfig(
  stream="synthetic:street",
  teacher="ground_truth",
  init="random",
  overlay=False,
)


def _config(at, **flags):
  height, width = at.size
  flags |= {"height": height, "width": width, "num_frames": 40 * at.repeats}
  return dataclasses.replace(_CONFIG, **flags)


def share(at):
  """A run's time for checkpoints against the whole of its time."""
  made, pairs = build.make_job(_config(at)), []
  abstract = checkpoint.abstract(made)
  executor = build.make_executor(made)
  for _ in range(max(2, at.repeats // 2)):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder)
      loop = Loop(
        *(made, path, runner.make_source(made)),
        executor=executor,
        checkpointer=checkpoint.Checkpointer(path, abstract, {}),
      )
      loop.run()
      stages = loop.stages
      spent = 1e3 * stages.seconds["checkpoint"]
      pairs.append((spent, 1e3 * stages.seconds_of_method()))
  count = stages.counts["checkpoint"]
  note = f"{count} checkpoints and all of a run, {at.size_text}"
  return measure.of_pairs("checkpoint_share", pairs, note)


def restore(at):
  """Reading a checkpoint against writing it, both to the end."""
  made = build.make_job(_config(at))
  abstract = checkpoint.abstract(made)
  state = build.make_executor(made).first_state()
  # A momentum of zeros would be no bytes at all.
  rng = np.random.default_rng(0)
  momentum = jax.tree.map(
    lambda x: rng.standard_normal(x.shape, x.dtype), state.opt_state
  )
  state = state._replace(opt_state=momentum)
  pairs = []
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    for t in range(at.repeats + 1):
      (path / workdir.METRICS).write_text("{}\n" * t)
      counts = stats.RunStats.empty(len(made.groups.names))
      snapshot = checkpoint.Snapshot(t, state, None, None, counts, {}, {})
      writer = checkpoint.Checkpointer(path, abstract, {})
      start = time.perf_counter()
      writer.save(snapshot, lambda: None)
      writer.close()
      middle = time.perf_counter()
      found, _ = checkpoint.Checkpointer(path, abstract, {}).latest()
      jax.block_until_ready(found.state)
      end = time.perf_counter()
      pairs.append((1e3 * (end - middle), 1e3 * (middle - start)))
    folders = (path / workdir.CHECKPOINTS / str(t)).rglob("*")
    num_bytes = sum(x.stat().st_size for x in folders if x.is_file())
  note = f"{num_bytes / 1e6:.1f} MB read and written, {at.size_text}"
  # The first imports what it takes.
  return measure.of_pairs("restore_vs_save", pairs[1:], note)


@functools.cache
def _recorded(at):
  """A run with a teacher that takes its time; its folder lives as long."""
  folder = tempfile.TemporaryDirectory()
  config = _config(
    at, teacher="mask_rcnn_tiny", workdir=folder.name, eval_every=0
  )
  runner.run(config, "")
  return folder, recorded_run.read(pathlib.Path(folder.name))


def trajectory_share(at):
  """The log's bytes per key frame against those of its class map."""
  _, run = _recorded(at)
  keys = [r for r in run.log if r.kind == trajectory.KEY]
  log = run.path / workdir.TRAJECTORY / trajectory.LOG
  each = log.stat().st_size / len(keys)
  labels = np.mean([len(record.packed) for record in keys])
  of_map = at.size[0] * at.size[1]
  note = (
    f"{each:.0f} bytes a key frame, {labels:.0f} of them labels, and {of_map} "
    "of a class map"
  )
  return measure.of_ratios("trajectory_share", [each / of_map], note)


def replayed(at):
  """Replaying a run against the run itself, without compiling."""
  _, run = _recorded(at)
  pairs = []
  for _ in range(max(2, at.repeats // 2)):
    found = replay.replay(run)
    pairs.append((1e3 * found.seconds, 1e3 * found.seconds_live))
  equal = "bit-equal" if found.is_equal else "NOT equal"
  note = f"{found.end} frames replayed, {equal}, {at.size_text}"
  return measure.of_pairs("replay_vs_live", pairs, note)


CASES = [
  Case(fn, measure.SMALL) for fn in (share, restore, trajectory_share, replayed)
]
