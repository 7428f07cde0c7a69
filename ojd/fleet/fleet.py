"""Many streams at once: one process, one program, shared teachers.

Every stream is a run with a workdir of its own, in a thread of its own; what
it shares is what its `Shared` says. One that fails does so alone.
"""

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from ojd.fleet import (
  arrivals,
  capacity,
  folder,
  gate,
  lanes,
  listing,
  member,
  purse,
  summary,
  zoo,
)
from ojd.fleet.listing import Entry
from ojd.fleet.member import Member
from ojd.fleet.teachers import Counts, Teachers
from ojd.run import config as config_lib
from ojd.run import runner, workdir
from ojd.run.config import RunConfig

_LOOK_SECONDS = 0.2  # between two looks at all streams


class Request(NamedTuple):
  """A fleet that is wanted."""

  path: pathlib.Path  # its folder
  config: RunConfig  # of all streams, but for stream and workdir
  entries: Sequence[Entry]
  command: str = ""  # that asks for it
  teacher_rate: float | None = None  # calls a second; None: no limit
  zoo: pathlib.Path | None = None  # None: without
  zoo_size: int = 16
  is_paced: bool = False  # play files at their own rate
  devices: Sequence[jax.Device] = ()  # empty: all there are


class Progress(NamedTuple):
  """Where a fleet is."""

  members: Sequence[Member]
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
    request: what is wanted.
    teachers: of the streams; closed by the caller.
    command_fn: how a stream is run alone, for its report.
    progress_fn: called a few times a second.
    should_stop: asked before every frame.
  """
  with begun(request, progress_fn) as entries:
    lived = live(
      request._replace(entries=entries),
      teachers,
      command_fn,
      progress_fn=progress_fn,
      should_stop=should_stop,
    )
    return summary.write(request.path, *lived)


@contextlib.contextmanager
def begun(request: Request, progress_fn: ProgressFn) -> Iterator[list[Entry]]:
  """Claims the fleet's folder while it runs; gives all streams their names."""
  member.check(request.config)
  known = folder.known_names(request.path, request.config)
  with workdir.claim(request.path):
    entries, notes = listing.named(list(request.entries), known)
    for note in notes:
      progress_fn(Progress([], Counts(), 0.0, note))
    folder.create(request.path, request.config, entries, request.command)
    yield entries


def live(
  request: Request,
  teachers: Teachers,
  command_fn: Callable[[RunConfig], str],
  *,
  own_purse: gate.Purse | None = None,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> tuple[list[Member], summary.Account]:
  """Runs streams that have names, in a folder that somebody has claimed.

  Takes what `run` takes, and a purse, where the teacher's calls are shared
  with others too.

  Returns:
    The streams as they ended, and what they took together.
  """
  config = request.config
  members = [member.make(request.path, config, x) for x in request.entries]
  tell = lambda words: progress_fn(Progress(members, Counts(), 0.0, words))
  _open(request, members, teachers, own_purse, tell)
  fleet = _Fleet(request, members, teachers, command_fn, own_purse)
  if fleet.waiting:
    fleet.run(tell, progress_fn, should_stop)
  return members, fleet.account()


def _open(request, members, teachers, own_purse, tell):
  """Opens all streams, and finds those that begin a student."""

  def open_one(one):
    member.open_job(
      one,
      teachers,
      is_paced=request.is_paced,
      is_rationed=request.teacher_rate is not None or own_purse is not None,
    )
    if one.state == member.DEAD:
      tell(f"{one.name}: {one.problem}")

  for one in members:
    open_one(one)
  if request.zoo is not None:
    arrivals.welcome(
      members, teachers, request.path, request.zoo, open_one, tell
    )


class _Fleet:
  """The streams that are to run, and what they share."""

  def __init__(self, request, members, teachers, command_fn, own_purse):
    self._request, self._members = request, members
    self._teachers, self._command_fn = teachers, command_fn
    self.waiting = [one for one in members if one.job is not None]
    self._purse = own_purse or self._make_purse()
    self._news: list[str] = []
    self._began, self._seconds = 0.0, 0.0
    self._num_before = 0  # frames of earlier sessions
    self._lanes: lanes.Lanes | None = None

  def _make_purse(self):
    rate, config = self._request.teacher_rate, self._request.config
    if rate is None:
      return None
    are_live = any(one.job.stream.spec.is_live for one in self.waiting)
    make = purse.WallPurse if are_live else purse.StreamPurse
    return make(
      rate, [one.name for one in self.waiting], config_lib.target(config)
    )

  def run(self, tell, progress_fn, should_stop):
    """Until all streams are over, or have been stopped."""
    jobs = [one.job for one in self.waiting]
    capacity.allow_files(len(jobs))
    capacity.check(jobs)
    self._lanes = lanes.open_lanes(
      jobs, self._request.devices or jax.local_devices(), tell
    )
    try:
      self._began = time.perf_counter()
      threads = [
        threading.Thread(
          target=self._live, args=(i, should_stop), name=one.name, daemon=True
        )
        for i, one in enumerate(self.waiting)
      ]
      for thread in threads:
        thread.start()
      while any(thread.is_alive() for thread in threads):
        time.sleep(_LOOK_SECONDS)
        self._show(progress_fn)
      self._seconds = time.perf_counter() - self._began
      self._show(progress_fn)
    finally:
      self._lanes.close()

  def _show(self, progress_fn):
    seconds = time.perf_counter() - self._began
    news, self._news = self._news, []
    for words in [*news, ""]:
      counts = self._teachers.counts()
      progress_fn(Progress(self._members, counts, seconds, words))

  def _live(self, index, should_stop):
    """The life of one stream."""
    one = self.waiting[index]
    one.state = member.RUNNING
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
      member.bury(one, error)
      self._news.append(f"{one.name}: {one.problem}")
      return
    finally:
      if self._purse is not None:
        self._purse.left(one.name)
    one.summary = outcome.summary
    is_over = outcome.summary["finished"]
    one.state = member.DONE if is_over else member.STOPPED
    self._leave_student(one, index)
    one.job = None
    self._news.append(f"{one.name}: {summary.in_words(one)}")

  def _note(self, one, progress):
    if one.progress is None:
      self._num_before += max(progress.num_frames - 1, 0)
    one.progress = progress
    if progress.problem:
      self._news.append(f"{one.name}: {progress.problem}")

  def _shared(self, one, index):
    fps = one.job.stream.spec.fps

    def labeler(job):
      asks = self._teachers.labeler(job)
      if self._purse is None or one.job.teacher.is_free:
        return asks
      return gate.Gated(asks, self._purse, one.name, fps)

    def line_fn(line):
      if self._purse is not None:
        self._purse.moved(one.name, line, (line["t"] + 1) / fps)

    return runner.Shared(
      make_job=lambda config: one.job,
      make_labeler=labeler,
      executor=self._lanes.slots[index],
      line_fn=line_fn,
    )

  def _leave_student(self, one, index):
    """Puts what a stream has learnt into the zoo."""
    if self._request.zoo is None or not one.summary["num_key_frames"]:
      return
    system = one.job.system
    state = self._lanes.slots[index].state
    about = {
      "model": one.config.model,
      "stream": one.name,
      "num_frames": one.summary["num_frames"],
      "miou": one.summary["miou"]["mean"],
    }
    try:
      zoo.leave(
        self._request.zoo,
        one.name,
        system.serving.params(state),
        one.job.groups,
        about,
        self._request.zoo_size,
      )
    except OSError as error:
      self._news.append(f"{one.name}: not in the zoo: {error.strerror}")

  def account(self) -> summary.Account:
    """What the fleet as a whole took."""
    granted = getattr(self._purse, "num_granted", 0)
    deferred = getattr(self._purse, "num_deferred", 0)
    frames = sum(x.progress.num_frames for x in self._members if x.progress)
    return summary.Account(
      self._seconds,
      frames - self._num_before,
      self._teachers.counts(),
      granted,
      deferred,
    )
