"""A process that runs cells of a comparison, one after the other.

What goes wrong with one of them is reported, and the next one is waited for.
The process ends when the process that started it does.
"""

import contextlib
import gc
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import jax

from ojd import processes
from ojd.compare import numbers
from ojd.compare.pool import (
  Check,
  Checked,
  Failed,
  Moved,
  Ran,
  Refused,
  Reply,
  Stopped,
  Task,
)
from ojd.errors import UserError
from ojd.run import build, compilation, runner, workdir
from ojd.run.stats import Progress

_REPORT_SECONDS = 0.5  # between two messages about the same cell
_ORPHAN_SECONDS = 10.0  # for the end of a run whose starter is gone


def serve(fd: int) -> None:
  """Answers tasks on a socket until None comes or the other side is gone."""
  processes.end_with_parent(_ORPHAN_SECONDS)
  compilation.enable_cache(compilation.default_cache())
  with Connection(fd) as connection:
    while True:
      try:
        task = connection.recv()
        if task is None:
          return
        connection.send(answer(task, connection.send, connection.poll))
      except (EOFError, OSError):
        return


def answer(
  task: Task,
  tell: Callable[[Moved], None] = lambda moved: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> Reply:
  """Does a task; whatever goes wrong is a reply too.

  Args:
    task: what to do.
    tell: called now and then during a run.
    should_stop: asked before every frame.
  """
  try:
    if isinstance(task, Check):
      return _check(task)
    return _run(task, tell, should_stop)
  except UserError as error:
    return Refused(str(error))
  except Exception as error:
    words = " ".join(str(error).split())
    return Failed(f"{type(error).__name__}: {words}")
  finally:
    # The programs of this cell are of no use to the next.
    jax.clear_caches()
    gc.collect()
    compilation.return_memory()


def _check(task):
  first = task.configs[0]
  job = build.make_job(first)
  job.close()
  spec, groups = job.stream.spec, job.groups
  if spec.is_live:
    raise UserError("a part of it is live: record it as a video first")
  if task.needs_one_class and (
    job.truth_groups is None or len(groups.names) != 2
  ):
    raise UserError(
      "--davis_measures are of a stream with labels of one class; here are "
      f"{', '.join(groups.names[1:])}; --classes=NAME chooses one"
    )
  are_finished = []
  for config, label in zip(task.configs, task.labels, strict=True):
    try:
      made = build.make_job_without_teacher(config, groups)
      are_finished.append(_is_finished(made.config, spec.identity, groups))
    except UserError as error:
      raise UserError(f"{label}: {error}") from None
  known = [n for n in (spec.num_frames, first.num_frames) if n is not None]
  return Checked(min(known) if known else None, tuple(are_finished))


def _is_finished(config, identity, groups):
  path = workdir.expand(config.workdir)
  description = workdir.describe_run(config, identity, groups, "")
  return workdir.inspect(path, description) is workdir.Status.FINISHED


def _run(task, tell, should_stop):
  outcome = runner.run(
    task.config,
    task.command,
    progress_fn=_Teller(tell),
    should_stop=should_stop,
  )
  if not outcome.summary["finished"]:
    return Stopped()
  numbers.measure(workdir.expand(task.config.workdir), task.wanted)
  return Ran()


class _Teller:
  """Passes on where a run is, not more often than anyone can read."""

  def __init__(self, tell):
    self._tell, self._last = tell, 0.0

  def __call__(self, progress: Progress):
    now = time.monotonic()
    if now - self._last >= _REPORT_SECONDS:
      self._last = now
      # If the other end is gone, the run is soon asked to stop.
      with contextlib.suppress(OSError):
        self._tell(Moved(progress.num_frames))
