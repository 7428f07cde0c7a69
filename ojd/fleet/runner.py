"""Many streams at once: one process, few programs, shared teachers.

Every stream is a run with a workdir and a thread of its own; `Shared` holds
what it shares. A stream that fails does not stop the others.
"""

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from ojd.fleet import (
  budget,
  folder,
  handle,
  listing,
  placement,
  summary,
  warm_start,
)
from ojd.fleet.handle import StreamHandle
from ojd.fleet.listing import Entry
from ojd.fleet.teachers import Counts, Teachers
from ojd.run import config as config_lib
from ojd.run import runner, workdir
from ojd.run.config import RunConfig

_POLL_SECONDS = 0.2


class Request(NamedTuple):
  """A fleet to run."""

  path: pathlib.Path  # its folder
  config: RunConfig  # of all streams, but for stream and workdir
  entries: Sequence[Entry]
  command: str = ""  # that asks for it
  teacher_rate: float | None = None  # calls a second; None: unlimited
  student_store: pathlib.Path | None = None  # None: no warm start
  max_students: int = 16  # of the store
  is_paced: bool = False  # play files at their own rate
  devices: Sequence[jax.Device] = ()  # empty: all there are


class Progress(NamedTuple):
  """The progress of a fleet."""

  handles: Sequence[StreamHandle]
  teachers: Counts
  seconds: float  # since its streams began
  news: str = ""


ProgressFn = Callable[[Progress], None]


def run(
  request: Request,
  teachers: Teachers,
  command_fn: Callable[[RunConfig], str],
  *,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
  """Runs all streams that are not finished; returns the fleet's summary.

  Args:
    request: the fleet.
    teachers: of the streams; closed by the caller.
    command_fn: the command of a stream alone, for its report.
    progress_fn: called a few times a second.
    should_stop: asked before every frame.
  """
  with claimed(request, progress_fn) as entries:
    handles, account = run_streams(
      request._replace(entries=entries),
      teachers,
      command_fn,
      progress_fn=progress_fn,
      should_stop=should_stop,
    )
    return summary.write(request.path, handles, account)


@contextlib.contextmanager
def claimed(request: Request, progress_fn: ProgressFn) -> Iterator[list[Entry]]:
  """Claims the fleet's folder while it runs; gives all streams their names."""
  handle.check(request.config)
  known = folder.known_names(request.path, request.config)
  with workdir.claim(request.path):
    entries, notes = listing.named(list(request.entries), known)
    for note in notes:
      progress_fn(Progress([], Counts(), 0.0, note))
    folder.create(request.path, request.config, entries, request.command)
    yield entries


def run_streams(
  request: Request,
  teachers: Teachers,
  command_fn: Callable[[RunConfig], str],
  *,
  limiter: budget.RateLimiter | None = None,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> tuple[list[StreamHandle], summary.Account]:
  """Runs streams that have names, in a folder that is claimed.

  Takes the arguments of `run`, and a rate limiter if other processes share the
  teacher's calls.

  Returns:
    The streams as they ended, and their resources together.
  """
  config = request.config
  handles = [handle.make(request.path, config, x) for x in request.entries]
  note = lambda words: progress_fn(Progress(handles, Counts(), 0.0, words))
  _open(request, handles, teachers, limiter, note)
  fleet = _Fleet(request, handles, teachers, command_fn, limiter)
  if fleet.waiting:
    fleet.run(note, progress_fn, should_stop)
  return handles, fleet.account()


def _open(request, handles, teachers, limiter, note_fn):
  """Opens all streams, and finds a student for those that are new."""

  def open_one(one):
    handle.open_job(
      one,
      teachers,
      is_paced=request.is_paced,
      is_rate_limited=request.teacher_rate is not None or limiter is not None,
    )
    if one.state == handle.DEAD:
      note_fn(f"{one.name}: {one.problem}")

  for one in handles:
    open_one(one)
  store = request.student_store
  if store is not None:
    warm_start.start_warm(
      handles, teachers, request.path, store, open_one, note_fn
    )


class _Fleet:
  """The streams to run, and what they share."""

  def __init__(self, request, handles, teachers, command_fn, limiter):
    self._request, self._handles = request, handles
    self._teachers, self._command_fn = teachers, command_fn
    self.waiting = [one for one in handles if one.job is not None]
    self._limiter = limiter or self._make_limiter()
    self._news: list[str] = []
    self._began, self._seconds = 0.0, 0.0
    self._num_before = 0  # frames of earlier sessions
    self._placement: placement.Placement | None = None

  def _make_limiter(self):
    rate, config = self._request.teacher_rate, self._request.config
    if rate is None:
      return None
    are_live = any(one.job.stream.spec.is_live for one in self.waiting)
    make = budget.ClockLimiter if are_live else budget.StreamTimeLimiter
    names = [one.name for one in self.waiting]
    return make(rate, names, config_lib.target(config))

  def run(self, note_fn, progress_fn, should_stop):
    """Runs until all streams are over or stopped."""
    jobs = [one.job for one in self.waiting]
    placement.allow_files(len(jobs))
    placement.check_memory(jobs)
    self._placement = placement.place(
      jobs, self._request.devices or jax.local_devices(), note_fn
    )
    with contextlib.closing(self._placement):
      self._began = time.perf_counter()
      threads = [
        threading.Thread(
          target=self._run_one, args=(i, should_stop), name=x.name, daemon=True
        )
        for i, x in enumerate(self.waiting)
      ]
      for thread in threads:
        thread.start()
      while any(thread.is_alive() for thread in threads):
        time.sleep(_POLL_SECONDS)
        self._show(progress_fn)
      self._seconds = time.perf_counter() - self._began
      self._show(progress_fn)

  def _show(self, progress_fn):
    seconds = time.perf_counter() - self._began
    news, self._news = self._news, []
    for words in [*news, ""]:
      counts = self._teachers.counts()
      progress_fn(Progress(self._handles, counts, seconds, words))

  def _run_one(self, index, should_stop):
    """Runs one stream, in its thread."""
    one = self.waiting[index]
    one.state = handle.RUNNING
    try:
      outcome = runner.run(
        one.job.config,
        self._command_fn(one.job.config),
        progress_fn=lambda progress: self._note(one, progress),
        should_stop=should_stop,
        note_fn=lambda words: self._news.append(f"{one.name}: {words}"),
        shared=self._shared(one, index),
      )
    except Exception as error:
      handle.fail(one, error)
      self._news.append(f"{one.name}: {one.problem}")
      return
    finally:
      if self._limiter is not None:
        self._limiter.leave(one.name)
    one.summary = outcome.summary
    is_over = outcome.summary["finished"]
    one.state = handle.DONE if is_over else handle.STOPPED
    self._save_student(one, index)
    one.job = None
    self._news.append(f"{one.name}: {summary.in_words(one)}")

  def _note(self, one, progress):
    if one.progress is None:
      self._num_before += max(progress.num_frames - 1, 0)
    one.progress = progress
    if progress.problem:
      self._news.append(f"{one.name}: {progress.problem}")

  def _shared(self, one, index):
    """The parts of a stream's run that come from the fleet."""
    fps, limiter = one.job.stream.spec.fps, self._limiter

    def make_labeler(job):
      labeler = self._teachers.labeler(job)
      if limiter is None or one.job.teacher.is_free:
        return labeler
      return budget.RateLimitedLabeler(labeler, limiter, one.name, fps)

    def line_fn(line):
      if limiter is not None:
        limiter.advance(one.name, line, (line["t"] + 1) / fps)

    return runner.Shared(
      make_job=lambda config: one.job,
      make_labeler=make_labeler,
      executor=self._placement.slots[index],
      line_fn=line_fn,
    )

  def _save_student(self, one, index):
    """Saves a stream's student for later streams."""
    store = self._request.student_store
    if store is None or not one.summary["num_key_frames"]:
      return
    params = one.job.system.serving.params(self._placement.slots[index].state)
    about = {
      "model": one.config.model,
      "stream": one.name,
      "num_frames": one.summary["num_frames"],
      "miou": one.summary["miou"]["mean"],
    }
    try:
      warm_start.save(
        *(store, one.name, params, one.job.groups, about),
        self._request.max_students,
      )
    except OSError as error:
      self._news.append(
        f"{one.name}: its student is not saved: {error.strerror}"
      )

  def account(self) -> summary.Account:
    """The resources of the fleet as a whole."""
    frames = sum(x.progress.num_frames for x in self._handles if x.progress)
    limited = self._limiter.counts() if self._limiter is not None else ()
    return summary.Account(
      self._seconds,
      frames - self._num_before,
      self._teachers.counts(),
      *limited,
    )
