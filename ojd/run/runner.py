"""From a config to a finished workdir."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from ojd.run import checkpoint as checkpoint_lib
from ojd.run import fork as fork_lib
from ojd.run import job as job_lib
from ojd.run import (
  late,
  linked,
  live_board,
  outputs,
  preparing,
  report,
  stats,
  trackers,
  trajectory,
  workdir,
)
from ojd.run.config import RunConfig
from ojd.run.loop import Loop, ProgressFn
from ojd.teachers import labelers


class Outcome(NamedTuple):
  """What became of a request to run."""

  status: workdir.Status  # of the folder before
  summary: dict[str, Any]


class Equipment(NamedTuple):
  """Where a run has from what it may share with others."""

  make_job: Callable[[RunConfig], job_lib.Job] = job_lib.make_job
  make_labeler: Callable[[job_lib.Job], labelers.Labeler] = job_lib.make_labeler
  compiled: job_lib.Compiled | None = None  # None: it compiles its own
  line_fn: outputs.LineFn = lambda line: None  # told every line of the metrics


_ITS_OWN = Equipment()


class _People(NamedTuple):
  """Who is told of a run, and who may end it; as `run` has them."""

  progress_fn: ProgressFn
  should_stop: Callable[[], bool]
  note_fn: Callable[[str], None]
  board: live_board.Board | None


def run(
  config: RunConfig,
  command: str,
  *,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
  note_fn: Callable[[str], None] = lambda note: None,
  fork: fork_lib.Fork | None = None,
  board: live_board.Board | None = None,
  equipment: Equipment = _ITS_OWN,
) -> Outcome:
  """Runs a checked config in its workdir, or goes on with it.

  A finished one is left as it is.

  Args:
    config: of `config.check`.
    command: how to run this again, for the report.
    progress_fn: called after every frame.
    should_stop: asked before every frame; True ends the run cleanly.
    note_fn: told where the run goes on, and why not later.
    fork: the moment of another run that this one begins with, if any.
    board: shows the run to others while it goes on.
    equipment: what it has not of its own; not for forks.
  """
  stages = stats.Stages()
  people = _People(progress_fn, should_stop, note_fn, board)
  make_fork = functools.partial(fork_lib.make_job, fork)
  job = (make_fork if fork else equipment.make_job)(config)
  with contextlib.closing(job):
    return _run(job, fork, command, stages, people, equipment)


def _run(job, fork, command, stages, people, equipment):
  config, path = job.config, workdir.expand(job.config.workdir)
  description = workdir.describe_run(
    config, job.stream.spec.identity, job.groups, command
  )
  if fork is not None:
    description["fork"] = fork_lib.describe(fork)
  workdir.inspect(path, description)  # before anything is written into it
  with workdir.claim(path):
    status = workdir.inspect(path, description)
    if status is workdir.Status.FINISHED:
      summary = workdir.read_summary(path)
      if not (path / workdir.REPORT / "index.html").exists():
        report.write_report(path)
      return Outcome(status, summary)
    loop = _open_loop(
      *(job, fork, path, status, description, stages, people, equipment)
    )
    summary = loop.run()
    if people.board is not None:
      people.board.end(summary)
    if summary["finished"]:
      workdir.drop_parts(path)
    report.write_report(path)
    return Outcome(status, summary)


def _open_loop(job, fork, path, status, description, stages, people, equipment):
  """The loop of a run that is new, or at the snapshot that it goes on from."""
  config, note_fn = job.config, people.note_fn
  checkpointer, start, branch = None, None, None
  if config.checkpoint_every:
    checkpointer = _checkpointer(job, path, description)
    start = _start(checkpointer, note_fn)
  if fork is not None and start is None:
    branch = fork_lib.first_snapshot(fork, job, note_fn)
  if status is workdir.Status.UNFINISHED and start is None:
    workdir.set_aside(path)
  workdir.create(path, description)
  prepared = preparing.prepare(job, stages, note_fn, people.should_stop)
  if prepared is None:
    # It stops before its first frame, whose student is not there to be kept.
    checkpointer = None
  job = prepared or job
  if branch is not None:
    start = _begin_fork(fork, branch, path, checkpointer)
  progress_fn, views = people.progress_fn, {"line_fn": equipment.line_fn}
  if people.board is not None:
    progress_fn, views = _begin_board(people, job, path, start)
  if fork is not None:
    labeler, knows = fork_lib.make_labeler(fork, job)
    more = {"labeler": labeler, "knows": knows}
  else:
    more = {"labeler": equipment.make_labeler(job)}
  log = _trajectory_writer(job, path, description, start)
  if log.problem:
    note_fn(log.problem)
  curves, problems = trackers.open_trackers(
    path, dataclasses.asdict(config), start.t if start else 0
  )
  for problem in problems:
    note_fn(problem)
  return _loop_of(config)(
    *(job, path),
    stages=stages,
    progress_fn=progress_fn,
    should_stop=people.should_stop,
    checkpointer=checkpointer,
    start=start,
    trajectory_writer=log,
    outputs=outputs.Outputs(job, path, start, trackers=curves, **views),
    compiled=equipment.compiled,
    **more,
  )


def _loop_of(config):
  if config.link:
    return linked.LinkLoop
  return late.LateLoop if config.async_teacher else Loop


def _begin_fork(fork, branch, path, checkpointer):
  """Keeps the fork's first snapshot: nothing but its parent could make it."""
  fork_lib.write_parent(fork, path)
  if checkpointer is not None:
    checkpointer.save(branch, lambda: None)
  return branch


def _begin_board(people, job, path, start):
  """What a loop tells a board, which is shown what came before."""
  board, config = people.board, job.config
  about = live_board.About(config.stream, config.system, job.groups.names)
  num_past = start.stats.num_frames if start else 0
  board.begin(about, report.read_metrics(path / workdir.METRICS)[:num_past])
  views = {"more_sinks": (board,), "line_fn": board.line}
  return _both(people.progress_fn, board.progress), views


def _both(first, second):
  def call(progress):
    first(progress)
    second(progress)

  return call


def _checkpointer(job, path, description):
  """Of the checkpoints of a job in its workdir."""
  about = {name: description[name] for name in ("flags", "stream", "versions")}
  return checkpoint_lib.Checkpointer(path, checkpoint_lib.abstract(job), about)


def _start(checkpointer, note_fn):
  """Where to go on; None at the beginning."""
  snapshot, problems = checkpointer.latest()
  for problem in problems:
    note_fn(f"passed over a checkpoint: {problem}")
  if snapshot is not None:
    note_fn(f"going on with frame {snapshot.t}")
  return snapshot


def _trajectory_writer(job, path, description, start):
  """The trajectory of a job's run."""
  return trajectory.TrajectoryWriter(
    path / workdir.TRAJECTORY,
    workdir.log_identity(description),
    start=start.t if start else 0,
    # What a live stream shows now was never asked about.
    is_repeatable=not (job.config.async_teacher or job.stream.spec.is_live),
  )
