"""`--teacher_process`: a labeler whose teacher has a process of its own.

A worker that dies or hangs is killed and, after a pause that doubles, started
again. Until then a request is answered at once, without labels. Only the first
start is waited for.

Pictures pass through memory that both sides map, a `Board`, and small messages
through a socket. Nothing here imports jax, and only teachers that use torch
import it.
"""

import math
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing import connection as mp_connection
from typing import Any, NamedTuple

import numpy as np

from ojd import processes
from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.teachers import base, labelers
from ojd.teachers.base import Context
from ojd.teachers.labelers import Answer
from ojd.types import Labels, Sample

_BYTES_PER_PIXEL = 9


class Board(NamedTuple):
  """The request and the answer, in memory that both processes map."""

  weights: np.ndarray  # [H, W] float32, of the labels
  classes: np.ndarray  # [H, W] uint8, of the labels
  frame: np.ndarray  # [H, W, 3] uint8
  truth: np.ndarray  # [H, W] uint8, the stream's own labels


class Start(NamedTuple):
  """To the worker, first: which teacher it is."""

  text: str  # the value of --teacher
  context: base.Context


class Ready(NamedTuple):
  """From the worker: the teacher is built."""

  class_names: tuple[str, ...]
  is_free: bool


class Ask(NamedTuple):
  """To the worker: label the frame on the board.

  ClassGroups come before the first one; None ends the worker.
  """

  t: int
  has_truth: bool


class Done(NamedTuple):
  """From the worker: the labels are on the board."""

  seconds: float  # of the teacher's own time


class Refused(NamedTuple):
  """From the worker: a UserError was raised there."""

  message: str


class Failed(NamedTuple):
  """From the worker: every try raised something else."""

  message: str


def board_bytes(height: int, width: int) -> int:
  return _BYTES_PER_PIXEL * height * width


def open_board(file: int, height: int, width: int) -> Board:
  """Maps a file of `board_bytes` bytes; it may be closed afterwards."""
  memory = mmap.mmap(file, board_bytes(height, width))
  size = height * width
  parts = np.split(np.frombuffer(memory, np.uint8), np.cumsum([4, 1, 3]) * size)
  return Board(
    weights=parts[0].view(np.float32).reshape(height, width),
    classes=parts[1].reshape(height, width),
    frame=parts[2].reshape(height, width, 3),
    truth=parts[3].reshape(height, width),
  )


def serve(socket: int, memory: int) -> None:
  """Builds the teacher of the first message, and answers until None comes.

  Args:
    socket: file descriptor of a Connection to the host.
    memory: file descriptor of the board.
  """
  processes.end_with_parent()
  for file in (socket, memory):
    os.set_inheritable(file, False)  # by what a teacher may start
  connection = mp_connection.Connection(socket)
  try:
    start: Start = connection.recv()
    board = open_board(memory, start.context.height, start.context.width)
    teacher, greeting = _build(start)
    connection.send(greeting)
    groups = None
    while teacher is not None and (message := connection.recv()) is not None:
      if isinstance(message, ClassGroups):
        groups = message
      else:
        connection.send(_answer(teacher, groups, board, message))
  except (EOFError, OSError):  # the host is gone
    pass


def _build(start: Start) -> tuple[base.Teacher | None, Any]:
  """The teacher, and the message about it."""
  try:
    teacher = base.make_teacher(start.text, start.context)
  except UserError as error:
    return None, Refused(str(error))
  except Exception as error:
    return None, Failed(f"{type(error).__name__}: {error}")
  return teacher, Ready(tuple(teacher.class_names), bool(teacher.is_free))


def _answer(teacher, groups, board: Board, request: Ask):
  # Copies: a teacher may keep what it is shown, and the board is used again.
  truth = board.truth.copy() if request.has_truth else None
  sample = Sample(request.t, board.frame.copy(), truth)
  try:
    answer = labelers.label(teacher, sample, groups)
  except UserError as error:
    return Refused(str(error))
  if answer.labels is None:
    return Failed(answer.problem)
  board.classes[...] = answer.labels.classes
  board.weights[...] = answer.labels.weights
  return Done(answer.seconds)


FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds until a worker is restarted
# Models load at the start, and much is set up at the first answer.
START_FACTOR = 10
_POLL_SECONDS = 0.05  # between looks at the clock; messages wake at once


class _Worker(processes.Child):
  """One start of the worker, with the memory that it shares."""

  def __init__(self, start: Start):
    self.is_ready = self.has_answered = False  # set by the reader
    size = start.context.height, start.context.width
    with _memory_file() as memory:
      os.ftruncate(memory.fileno(), board_bytes(*size))
      self.board = open_board(memory.fileno(), *size)
      super().__init__("ojd.teachers.process:serve", memory.fileno())
    self.send(start)


def _memory_file():
  """A nameless file; of memory, where the system has such a thing."""
  if hasattr(os, "memfd_create"):
    return os.fdopen(os.memfd_create("ojd-board"), "r+b")
  return tempfile.TemporaryFile()


class InProcess:
  """A Labeler whose teacher works in another process."""

  def __init__(
    self,
    text: str,
    context: Context,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the worker and waits until it is ready.

    Args:
      text: of the teacher, for `make_teacher`; so is the context.
      context: the stream.
      timeout: seconds after which a request counts as lost; ten times that for
        a start and the first answer after it.
      clock: in seconds.
    """
    self._start_message = Start(text, context)
    self._timeout, self._clock = timeout, clock
    self._groups: ClassGroups | None = None
    self._child: _Worker | None = None
    self._dying: list[_Worker] = []
    self._is_closed = False
    self._deadline = math.inf  # for what the worker does now
    self._pause, self._retry_at, self._reason = 0.0, 0.0, ""
    self._request: Sample | None = None
    self._is_sent = False
    self._answer: Answer | None = None
    self._news = ""
    try:
      self._begin(*self._first_greeting())
    except BaseException:
      self.close()
      raise

  def _first_greeting(self):
    """Class names, and whether the teacher is free; raises if it fails."""
    self._child = _Worker(self._start_message)
    deadline = self._clock() + self._limit()
    while not self._child.has_message(_POLL_SECONDS):
      if self._clock() >= deadline:
        raise RuntimeError(
          f"the teacher's process was not ready within {self._limit():g} s; "
          "--teacher_timeout allows more"
        )
    try:
      message = self._child.read()
    except EOFError:
      raise RuntimeError(
        f"the teacher's process {self._child.how_it_ended()} as it started"
      ) from None
    if isinstance(message, Refused):
      raise UserError(message.message)
    if isinstance(message, Failed):
      raise RuntimeError(message.message)
    return message

  def _begin(self, class_names, is_free):
    self.class_names, self.is_free = class_names, is_free
    self._child.is_ready = True

  @property
  def pid(self) -> int | None:
    """Of the worker; None while it is away."""
    return self._child.pid if self._child else None

  @property
  def is_ready(self) -> bool:
    """Whether a request would be worked on at once."""
    return self._child is not None and self._child.is_ready

  def set_groups(self, groups: ClassGroups) -> None:
    """Sets the classes of the labels, before the first request."""
    self._groups = groups
    if self._child is not None:
      self._child.send(groups)

  def ask(self, sample: Sample) -> None:
    """Starts a request; the one before must have been answered."""
    self._request, self._is_sent, self._answer = sample, False, None
    self._update()

  def answer(self, wait: bool) -> Answer | None:
    """The answer to the open request; None where there is none (yet).

    Waits for a worker that works, never for one that is being restarted.
    """
    while True:
      self._update()
      if self._answer is not None:
        answer, self._request, self._answer = self._answer, None, None
        return answer
      if not wait or self._request is None:
        return None
      if not self._is_sent:
        self._fail("its process is being started again")
      elif self._child is not None:
        self._child.has_message(_POLL_SECONDS)

  def poll(self) -> str:
    """Restarts the worker when it is time; returns what went wrong since."""
    self._update()
    news, self._news = self._news, ""
    return news

  def close(self) -> None:
    """Ends the worker; one amid an answer is killed."""
    self._is_closed = True
    child, self._child = self._child, None
    if child is not None:
      is_busy = not child.is_ready or self._request is not None
      child.kill() if is_busy else child.dismiss()
      self._dying.append(child)
    for child in self._dying:
      child.wait()
    self._dying, self._request, self._answer = [], None, None

  def _update(self):
    """All that can be done without waiting."""
    self._dying = [child for child in self._dying if not child.has_ended()]
    if self._is_closed:
      return
    if self._child is None and self._clock() >= self._retry_at:
      self._restart()
    while self._child is not None and self._child.has_message():
      self._read()
    if self._child is not None and self._clock() >= self._deadline:
      self._lose(
        f"its process gave no answer within {self._limit():g} s"
        if self._child.is_ready
        else f"its process was not ready within {self._limit():g} s"
      )
    if self._request is not None and not self._is_sent:
      self._post()

  def _limit(self):
    """Seconds for what the worker does now."""
    is_proven = self._child is not None and self._child.has_answered
    return self._timeout * (1 if is_proven else START_FACTOR)

  def _restart(self):
    try:
      self._child = _Worker(self._start_message)
      self._deadline = self._clock() + self._limit()
    except OSError as error:
      self._lose(f"its process cannot be started: {error}")

  def _read(self):
    """Takes one message of the worker."""
    try:
      message = self._child.read()
    except EOFError:
      return self._lose(f"its process {self._child.how_it_ended()}")
    if not self._child.is_ready:
      return self._read_greeting(message)
    self._deadline = math.inf
    self._child.has_answered = True
    if isinstance(message, Refused):
      self._request = None
      raise UserError(message.message)
    if isinstance(message, Failed):
      return self._fail(message.message)
    self._pause = 0.0
    board = self._child.board
    labels = Labels(board.classes.copy(), board.weights.copy())
    self._answer = Answer(self._request, labels, "", message.seconds)

  def _read_greeting(self, message):
    """The first message after a restart."""
    if not isinstance(message, Ready):
      self._lose(message.message)
    elif message.class_names != self.class_names:
      self._lose("its classes are others now")
    else:
      self._child.is_ready, self._deadline = True, math.inf
      if self._groups is not None:
        self._child.send(self._groups)

  def _post(self):
    """Sends the open request, or answers it where there is no worker."""
    if self._answer is not None:
      return
    if self._child is None:
      pause = max(self._retry_at - self._clock(), 0.0)
      self._fail(f"{self._reason}; it is started again in {pause:.1f} s")
    elif self._child.is_ready:
      sample, board = self._request, self._child.board
      board.frame[...] = sample.frame
      if sample.truth is not None:
        board.truth[...] = sample.truth
      self._is_sent = True
      self._deadline = self._clock() + self._limit()
      self._child.send(Ask(sample.t, sample.truth is not None))

  def _lose(self, reason):
    """Gives the worker up, and sets when another is started."""
    child, self._child = self._child, None
    if child is not None:
      child.kill()
      self._dying.append(child)
    self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
    self._retry_at, self._reason = self._clock() + self._pause, reason
    self._deadline = math.inf
    words = f"{reason}; it is started again in {self._pause:g} s"
    if self._request is not None and self._answer is None:
      self._fail(words)
    else:
      self._news = f"the teacher is away: {words}"

  def _fail(self, problem):
    self._answer = Answer(self._request, None, problem, 0.0)
