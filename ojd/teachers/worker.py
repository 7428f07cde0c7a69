"""The process of a teacher, and the messages and memory that it shares.

Pictures pass through memory that both sides map, a `Board`, and small messages
through a socket. `ojd.teachers.process` is the other side. Nothing here imports
jax, and only teachers that use torch import it.
"""

import mmap
import os
from multiprocessing import connection as mp_connection
from typing import Any, NamedTuple

import numpy as np

from ojd import processes
from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.teachers import base, labelers
from ojd.types import Sample

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
