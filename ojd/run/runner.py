"""Runs a config in its workdir, from the first frame or from a checkpoint."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ojd.formats import run_files
from ojd.report import run_page
from ojd.run import (
  build,
  compilation,
  network_source,
  outputs,
  preparing,
  sinks,
  sources,
  stats,
  trackers,
  trajectory,
  workdir,
)
from ojd.run import checkpoint as checkpoint_lib
from ojd.run import config as config_lib
from ojd.run import fork as fork_lib
from ojd.run.config import RunConfig
from ojd.run.executor import Executor
from ojd.run.loop import Loop, ProgressFn
from ojd.teachers import labelers


class Outcome(NamedTuple):
  """The result of `run`."""

  status: workdir.Status  # of the workdir before the run
  summary: dict[str, Any]


class About(NamedTuple):
  """The constant facts of a run, for a display."""

  stream: str
  system: str
  class_names: tuple[str, ...]


class Display(sinks.Sink, Protocol):
  """Shows a run while it goes on; it is also a sink of the frames."""

  def begin(self, about: About, past_lines: list[dict[str, Any]]) -> None:
    """Takes the facts of the run, and the metrics of a run that resumes."""

  def line(self, line: dict[str, Any]) -> None:
    """Takes a line of metrics.jsonl."""

  def progress(self, progress: stats.Progress) -> None:
    """Takes the progress after a frame."""

  def end(self, summary: dict[str, Any]) -> None:
    """Takes the content of summary.json."""


class Shared(NamedTuple):
  """What a run may share with other runs; by default it makes its own."""

  make_job: Callable[[RunConfig], build.Job] = build.make_job
  make_labeler: Callable[[build.Job], labelers.Labeler] = build.make_labeler
  executor: Executor | None = None
  line_fn: outputs.LineFn = lambda line: None  # gets each line of the metrics


class _Request(NamedTuple):
  """A requested run, and the functions that it reports to."""

  job: build.Job
  fork: fork_lib.Fork | None
  path: pathlib.Path
  description: dict[str, Any]  # the content of config.json
  stages: stats.Stages
  progress_fn: ProgressFn  # called after every frame
  should_stop: Callable[[], bool]  # before every frame
  note_fn: Callable[[str], None]  # gets lines about the run
  display: Display | None
  shared: Shared


def run(
  config: RunConfig,
  command: str,
  *,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
  note_fn: Callable[[str], None] = lambda note: None,
  fork: fork_lib.Fork | None = None,
  display: Display | None = None,
  shared: Shared = Shared(),  # noqa: B008, a constant
) -> Outcome:
  """Runs a checked config in its workdir, or resumes it.

  A finished run stays unchanged.

  Args:
    config: accepted by `config.check`.
    command: the command line that repeats the run, for the report.
    progress_fn: called after every frame.
    should_stop: called before every frame; True ends the run cleanly.
    note_fn: called with the frame that the run resumes at, and with problems.
    fork: the parent and the frame that this run branches off from, if any.
    display: shows the run while it goes on.
    shared: parts that several runs share; not for forks.
  """
  stages = stats.Stages()
  if fork is None:
    job = shared.make_job(config)
  else:
    job = fork_lib.make_job(fork, config)
  with contextlib.closing(job):
    path = workdir.expand(job.config.workdir)
    description = _describe(job, fork, command)
    workdir.inspect(path, description)  # before anything is written
    with workdir.claim(path):
      status = workdir.inspect(path, description)
      if status is workdir.Status.FINISHED:
        summary = workdir.read_summary(path)
        if not (path / workdir.REPORT / "index.html").exists():
          run_page.write(path)
        return Outcome(status, summary)
      request = _Request(
        *(job, fork, path, description, stages),
        *(progress_fn, should_stop, note_fn, display, shared),
      )
      summary = _open_loop(request, *_begin(request, status)).run()
      if display is not None:
        display.end(summary)
      if summary["finished"]:
        workdir.drop_parts(path)
      run_page.write(path)
      return Outcome(status, summary)


def online_distill(
  config: RunConfig,
  *,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
  note_fn: Callable[[str], None] = lambda note: None,
  display: Display | None = None,
) -> Outcome:
  """Distills a teacher into a student online, on one stream.

  It does what `python -m experiments.online_distill` does with the same flags.
  It starts a run in the workdir or resumes the one there; a finished run stays
  unchanged. The user's cache keeps the compiled programs.

  Args:
    config: the flags; `workdir` is required.
    progress_fn: called after every frame.
    should_stop: called before every frame; True ends the run cleanly.
    note_fn: called with the frame that the run resumes at, and with problems.
    display: shows the run while it goes on.

  Returns:
    The status of the workdir before the run, and the content of summary.json.
  """
  config_lib.check(config)
  compilation.enable_cache(compilation.default_cache())
  return run(
    config,
    config_lib.command("experiments.online_distill", config),
    progress_fn=progress_fn,
    should_stop=should_stop,
    note_fn=note_fn,
    display=display,
  )


def _describe(job, fork, command):
  """The content of config.json."""
  description = workdir.describe_run(
    job.config, job.stream.spec.identity, job.groups, command
  )
  description["options"] = config_lib.options(job.config)
  if fork is not None:
    description["fork"] = fork_lib.describe(fork)
  return description


def _begin(
  request: _Request, status: workdir.Status
) -> tuple[
  build.Job, checkpoint_lib.Checkpointer | None, checkpoint_lib.Snapshot | None
]:
  """Prepares the workdir, and finds the snapshot that the run starts from.

  The run starts from its own latest checkpoint, else from its parent's state if
  it is a fork, else from the beginning of the stream.

  Returns:
    The job with the student that its method trained before the run, the
    checkpointer or None, and the snapshot or None for the beginning.
  """
  job, fork, path, *_ = request
  note_fn = request.note_fn
  checkpointer, start, branch = None, None, None
  if job.config.checkpoint_every:
    names = ("flags", "stream", "versions")
    about = {name: request.description[name] for name in names}
    checkpointer = checkpoint_lib.Checkpointer(
      path, checkpoint_lib.abstract(job), about
    )
    start, problems = checkpointer.latest()
    for problem in problems:
      note_fn(f"skipped a checkpoint: {problem}")
    if start is not None:
      note_fn(f"resuming at frame {start.t}")
  if fork is not None and start is None:
    branch = fork_lib.first_snapshot(fork, job, note_fn)
  if status is workdir.Status.UNFINISHED and start is None:
    workdir.set_aside(path)
  workdir.create(path, request.description)
  prepared = preparing.prepare(
    job, request.stages, note_fn, request.should_stop
  )
  if prepared is None:
    # The run stops before its first frame, without a student to save.
    checkpointer = None
  if branch is not None:
    fork_lib.write_parent(fork, path)
    if checkpointer is not None:  # to resume without the parent
      checkpointer.save(branch)
  return prepared or job, checkpointer, start or branch


def _open_loop(
  request: _Request,
  job: build.Job,
  checkpointer: checkpoint_lib.Checkpointer | None,
  start: checkpoint_lib.Snapshot | None,
) -> Loop:
  """Makes the loop of a run from a snapshot, with everything that it writes."""
  path, fork, shared = request.path, request.fork, request.shared
  first_t = start.t if start else 0
  if fork is None:
    labeler, knows = shared.make_labeler(job), lambda t: False
  else:
    labeler, knows = fork_lib.make_labeler(fork, job)
  log = trajectory.TrajectoryWriter(
    path / workdir.TRAJECTORY,
    workdir.log_identity(request.description),
    start=first_t,
    # A live stream never repeats the frames that the log has labels for.
    is_repeatable=not (job.config.async_teacher or job.stream.spec.is_live),
  )
  curves, problems = trackers.open_trackers(
    path, dataclasses.asdict(job.config), first_t
  )
  for problem in filter(None, [log.problem, *problems]):
    request.note_fn(problem)
  progress_fn, views = _views(request, start)
  return Loop(
    job,
    path,
    make_source(job),
    stages=request.stages,
    progress_fn=progress_fn,
    should_stop=request.should_stop,
    executor=shared.executor,
    labeler=labeler,
    knows=knows,
    checkpointer=checkpointer,
    start=start,
    trajectory_writer=log,
    outputs=outputs.Outputs(job, path, start, trackers=curves, **views),
  )


def make_source(job: build.Job) -> sources.InStep:
  """Makes the label source of a job."""
  config = job.config
  if config.link:
    return network_source.SimulatedNetwork(job)
  if config.async_teacher:
    is_unlabeled = job.truth_groups is None
    return sources.Late(is_unlabeled and config.eval_every is None)
  return sources.InStep()


def _views(request, start):
  """The progress function, and the outputs that also feed the display."""
  display, job = request.display, request.job
  if display is None:
    return request.progress_fn, {"line_fn": request.shared.line_fn}
  about = About(job.config.stream, job.config.system, job.groups.names)
  past = run_files.read_metrics(request.path / workdir.METRICS)
  display.begin(about, past[: start.stats.num_frames if start else 0])

  def progress_fn(progress):
    request.progress_fn(progress)
    display.progress(progress)

  return progress_fn, {"more_sinks": (display,), "line_fn": display.line}
