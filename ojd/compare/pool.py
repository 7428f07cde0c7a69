"""Worker processes and the tasks that they share.

A worker that dies costs the task it was at; another one takes its place, and
that of one that has done many. A task is a question, and a reply its answer.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ojd import processes

if TYPE_CHECKING:
  # Whoever only passes tasks on has no use for jax.
  from ojd.run.config import RunConfig

WORKER = "ojd.compare.worker"
_STDERR = 2
# Each run leaves some 2 MB in its process.
MOST_TASKS = 32
_LOOK_SECONDS = 0.2  # between looks at who wants to stop
_END_SECONDS = 5.0  # for an idle worker to end by itself


class Check(NamedTuple):
  """Asks whether the cells of one stream can be run."""

  configs: tuple["RunConfig", ...]
  labels: tuple[str, ...]  # of their systems
  needs_one_class: bool  # and labels of it


class Run(NamedTuple):
  """Asks for a cell, which may be there already."""

  config: "RunConfig"
  command: str  # that runs it alone
  wanted: frozenset[str]  # of numbers.measure


class Checked(NamedTuple):
  """The cells can be run."""

  num_frames: int | None  # of each
  are_finished: tuple[bool, ...]


class Ran(NamedTuple):
  """The cell is finished and measured."""


class Stopped(NamedTuple):
  """The cell was interrupted on request."""


class Moved(NamedTuple):
  """How far the cell is; another message follows."""

  num_frames: int


class Refused(NamedTuple):
  """A UserError."""

  message: str


class Failed(NamedTuple):
  """Any other error."""

  message: str


Task = Check | Run
Reply = Checked | Ran | Stopped | Refused | Failed


class _Worker(processes.Child):
  """One process, and what it is at."""

  def __init__(self, module):
    # What a custom teacher prints is no part of the table.
    super().__init__(f"{module}:serve", stdout=_STDERR)
    self.task: int | None = None
    self.num_tasks = 0

  def end(self):
    """Lets an idle worker end by itself; one amid a task is killed."""
    if self.task is None:
      self.dismiss(_END_SECONDS)
    else:
      self.kill()
    self.wait()


class Pool:
  """Runs tasks in at most so many processes, which are kept for the next."""

  def __init__(self, size: int, module: str = WORKER):
    """Starts nothing yet.

    Args:
      size: the most processes at a time.
      module: has `serve(fd)`, as the module of the workers.
    """
    self._size, self._module = size, module
    self._workers: list[_Worker] = []

  def run(
    self,
    tasks: Sequence[Any],
    *,
    note_fn: Callable[[int, Any], None] = lambda index, message: None,
    should_stop: Callable[[], bool] = lambda: False,
  ) -> list[Any]:
    """Replies to the tasks, in their order; `Stopped` where one was not done.

    Args:
      tasks: what the workers take.
      note_fn: called with the number of a task and each message about it.
      should_stop: asked all the time; workers then end their tasks early.
    """
    replies: list[Any] = [Stopped()] * len(tasks)
    waiting = list(enumerate(tasks))[::-1]
    is_stopping = False
    while waiting or self._busy():
      if not is_stopping and should_stop():
        is_stopping, waiting = True, []
        for worker in self._busy():
          worker.send(None)  # to be seen by the run, and then the end
      while waiting and len(self._busy()) < self._size:
        self._begin(*waiting.pop())
      for worker in processes.wait_any(self._busy(), _LOOK_SECONDS):
        index, message = worker.task, self._hear(worker)
        if not isinstance(message, Moved):
          replies[index], worker.task = message, None
          self._retire(worker)
        note_fn(index, message)
    return replies

  def close(self) -> None:
    """Ends all processes."""
    workers, self._workers = self._workers, []
    for worker in workers:
      worker.end()

  def _busy(self):
    return [worker for worker in self._workers if worker.task is not None]

  def _begin(self, index, task):
    idle = [worker for worker in self._workers if worker.task is None]
    if not idle:
      idle = [_Worker(self._module)]
      self._workers += idle
    idle[0].task = index
    idle[0].num_tasks += 1
    idle[0].send(task)

  def _retire(self, worker):
    """Lets one go that has done enough, if it has not gone already."""
    if worker in self._workers and worker.num_tasks >= MOST_TASKS:
      self._workers.remove(worker)
      worker.end()

  def _hear(self, worker):
    try:
      return worker.read()
    except EOFError:
      self._workers.remove(worker)
      message = Failed(f"its process {worker.how_it_ended(_END_SECONDS)}")
      worker.end()
      return message
