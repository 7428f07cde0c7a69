"""Starts runs as there is room for them, and sees them to their ends."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from launch.registry import Registry, last_line
from launch.runs import Run

_LOOK_SECONDS = 0.1
_REPORT_SECONDS = 0.5  # between two looks into all logs


class Task(Protocol):
  """A run that was started somewhere."""

  def poll(self) -> int | None:
    """The exit code, None while the run goes on."""

  def stop(self) -> None:
    """Asks the run to end, and does not wait for it."""

  def kill(self) -> None:
    """Ends it at once."""


# None where there is no room for the run as yet.
StartFn = Callable[[Run], Task | None]


class Active(NamedTuple):
  """A run that goes on."""

  name: str
  seconds: float  # since its start
  words: str  # the last line of its log


class Progress(NamedTuple):
  """Where a launch is."""

  num_done: int
  num_failed: int
  num_all: int
  eta: float | None  # seconds; None if unknown
  active: list[Active]
  news: str = ""  # of a run that just began or ended


class Ended(NamedTuple):
  """The results of all runs."""

  num_done: int  # now and before
  failed: list[str]  # a line each
  num_left: int  # not started, or stopped


WatchFn = Callable[[Progress], None]


def drive(
  runs: Sequence[Run],
  num_done: int,
  registry: Registry,
  start: StartFn,
  *,
  watch: WatchFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
  clock: Callable[[], float] = time.monotonic,
) -> Ended:
  """Starts the runs in their order; leaves none of them going on.

  A run that fails is reported, and the others go on.

  Args:
    runs: what is to be run.
    num_done: how many were done before.
    registry: where their logs are.
    start: starts a run, if there is room for it.
    watch: called all the time.
    should_stop: asked all the time; True asks all runs to end.
    clock: seconds.
  """
  state = _State(runs, num_done, registry, watch, clock)
  is_stopping = False
  try:
    while state.active or (state.waiting and not is_stopping):
      if not is_stopping and should_stop():
        is_stopping = True
        for task, _ in state.active.values():
          task.stop()
      while state.waiting and not is_stopping:
        task = start(state.waiting[0])
        if task is None:
          break
        state.begin(task)
      for run, (task, begun) in list(state.active.items()):
        code = task.poll()
        if code is not None:
          state.end(run, code, clock() - begun, is_stopping)
      state.report()
      time.sleep(_LOOK_SECONDS)
  finally:
    for task, _ in state.active.values():
      task.kill()
  return Ended(
    state.num_done, state.failed, len(state.waiting) + state.num_stopped
  )


class _State:
  """Runs that wait, runs that go on, and the results of the rest."""

  def __init__(self, runs, num_done, registry, watch, clock):
    self.waiting = deque(runs)
    self.active: dict[Run, tuple[Task, float]] = {}
    self.num_done, self.num_stopped = num_done, 0
    self.failed: list[str] = []
    self._registry, self._watch, self._clock = registry, watch, clock
    self._num_all = num_done + len(runs)
    self._begun, self._num_ended = clock(), 0
    self._reported = -math.inf

  def begin(self, task):
    run = self.waiting.popleft()
    self.active[run] = task, self._clock()
    self.report(f"{run.name}: started")

  def end(self, run, code, seconds, is_stopping):
    del self.active[run]
    log = self._registry.log(run)
    self._num_ended += 1
    if code == 0:
      self.num_done += 1
      self.report(f"{run.name}: done in {seconds:.0f} s")
    elif is_stopping:
      self.num_stopped += 1
      self.report(f"{run.name}: stopped")
    else:
      words = last_line(log)
      self.failed.append(f"{run.name}: code {code}: {words} ({log})")
      self.report(self.failed[-1])

  def report(self, news=""):
    now = self._clock()
    if not news and now - self._reported < _REPORT_SECONDS:
      return
    self._reported = now
    active = [
      Active(run.name, now - begun, last_line(self._registry.log(run)))
      for run, (_, begun) in self.active.items()
    ]
    self._watch(
      Progress(
        self.num_done,
        len(self.failed),
        self._num_all,
        self._eta(now),
        active,
        news,
      )
    )

  def _eta(self, now):
    """By the runs that ended since the launch began."""
    if not self._num_ended:
      return None
    left = len(self.waiting) + len(self.active)
    # Those that go on are half-way, on average.
    left -= len(self.active) / 2
    return (now - self._begun) / self._num_ended * left
