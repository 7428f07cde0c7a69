"""A teacher in a process of its own: that process, and what it shares.

Pictures pass through memory that both sides map, a `Board`; small messages
through a socket. `ojd.teachers.process` is the other side. Nothing here needs
jax, and torch is imported only by teachers that use it.
"""

import mmap
import os
import queue
import threading
from multiprocessing import connection as mp_connection
from typing import Any, NamedTuple

import numpy as np

from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.teachers import base, labelers
from ojd.types import Sample

_BYTES_PER_PIXEL = 9


class Board(NamedTuple):
  """The question and the answer, in memory that both processes see."""

  weights: np.ndarray  # [H, W] float32, of the labels
  classes: np.ndarray  # [H, W] uint8, of the labels
  frame: np.ndarray  # [H, W, 3] uint8
  truth: np.ndarray  # [H, W] uint8, the stream's own labels


class Start(NamedTuple):
  """To the worker, first: which teacher it is."""

  text: str  # the value of --teacher
  context: base.Context


class Ready(NamedTuple):
  """From the worker: the teacher is built, and what it knows."""

  class_names: tuple[str, ...]
  is_free: bool


class Ask(NamedTuple):
  """To the worker: label the frame on the board.

  ClassGroups come before the first; None, at the end, lets the worker go.
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
  """From the worker: anything else was raised there, at every try."""

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
  """Builds the teacher it is told of and answers until it is let go.

  Args:
    socket: file descriptor of a Connection to the asker.
    memory: file descriptor of the board.
  """
  for file in (socket, memory):
    os.set_inheritable(file, False)  # by what a teacher may start
  connection = mp_connection.Connection(socket)
  inbox: queue.SimpleQueue = queue.SimpleQueue()
  threading.Thread(
    target=_listen, args=(connection, inbox), daemon=True
  ).start()
  start: Start = inbox.get()
  board = open_board(memory, start.context.height, start.context.width)
  teacher, greeting = _build(start)
  _send(connection, greeting)
  groups = None
  while teacher is not None and (message := inbox.get()) is not None:
    if isinstance(message, ClassGroups):
      groups = message
    else:
      _send(connection, _answer(teacher, groups, board, message))


def _listen(connection, inbox):
  """A thread of its own: the asker's end is seen also amid a long answer."""
  try:
    while (message := connection.recv()) is not None:
      inbox.put(message)
    inbox.put(None)
  except (EOFError, OSError):
    os._exit(0)


def _send(connection, message):
  try:
    connection.send(message)
  except OSError:
    os._exit(0)  # nobody is there to hear it


def _build(start: Start) -> tuple[base.Teacher | None, Any]:
  """The teacher, and what to say about it."""
  try:
    teacher = base.make_teacher(start.text, start.context)
  except UserError as error:
    return None, Refused(str(error))
  except Exception as error:
    return None, Failed(f"{type(error).__name__}: {error}")
  return teacher, Ready(tuple(teacher.class_names), bool(teacher.is_free))


def _answer(teacher, groups, board: Board, question: Ask):
  # Copies: a teacher may keep what it is shown, and the board is used again.
  truth = board.truth.copy() if question.has_truth else None
  sample = Sample(question.t, board.frame.copy(), truth)
  try:
    answer = labelers.label(teacher, sample, groups)
  except UserError as error:
    return Refused(str(error))
  if answer.labels is None:
    return Failed(answer.problem)
  board.classes[...] = answer.labels.classes
  board.weights[...] = answer.labels.weights
  return Done(answer.seconds)
