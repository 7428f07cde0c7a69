"""From a config to a finished workdir."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from ojd.run import job as job_lib
from ojd.run import late, report, timing, workdir
from ojd.run.config import RunConfig
from ojd.run.loop import Loop, ProgressFn


class Outcome(NamedTuple):
  """What became of a request to run."""

  status: workdir.Status  # of the folder before
  summary: dict[str, Any]


def run(
  config: RunConfig,
  command: str,
  *,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
  """Runs a checked config in its workdir; a finished one is left as it is.

  Args:
    config: of `config.check`.
    command: how to run this again, for the report.
    progress_fn: called after every frame.
    should_stop: asked before every frame; True ends the run cleanly.
  """
  stages = timing.Stages()
  with contextlib.closing(job_lib.make_job(config)) as job:
    return _run(job, command, stages, progress_fn, should_stop)


def _run(job, command, stages, progress_fn, should_stop):
  config, path = job.config, workdir.expand(job.config.workdir)
  description = workdir.describe_run(
    config, job.stream.spec.identity, job.groups.names, command
  )
  workdir.inspect(path, description)  # before anything is written into it
  with workdir.claim(path):
    status = workdir.inspect(path, description)
    if status is workdir.Status.FINISHED:
      summary = workdir.read_summary(path)
      if not (path / workdir.REPORT / "index.html").exists():
        report.write_report(path)
      return Outcome(status, summary)
    if status is workdir.Status.UNFINISHED:
      workdir.set_aside(path)
    workdir.create(path, description)
    make_loop = late.LateLoop if config.async_teacher else Loop
    loop = make_loop(
      job, path, stages=stages, progress_fn=progress_fn, should_stop=should_stop
    )
    summary = loop.run()
    report.write_report(path)
    return Outcome(status, summary)
