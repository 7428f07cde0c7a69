"""One file a method; the table of their names."""

from collections.abc import Callable
from typing import NamedTuple

from ojd.distill import System
from ojd.models.student import Student
from ojd.systems import jit
from ojd.updates.step import Tx


class Settings(NamedTuple):
  """What a person may set; each system takes what it has a use for."""

  a_thresh: float = 0.8
  delta_min: int = 8
  delta_max: int = 64
  u_max: int = 8
  u_min: int = 0
  norm: str = "frame"


def _jit(student, tx, settings):
  return jit.jit(student, tx, **settings._asdict())


def _fixed(student, tx, settings):
  return jit.fixed(
    student,
    tx,
    stride=settings.delta_min,
    a_thresh=settings.a_thresh,
    u_max=settings.u_max,
    u_min=settings.u_min,
    norm=settings.norm,
  )


def _frozen(student, tx, settings):
  del tx, settings  # nothing is ever updated
  return jit.frozen(student)


Factory = Callable[[Student, Tx, Settings], System]

SYSTEMS: dict[str, Factory] = {"jit": _jit, "fixed": _fixed, "frozen": _frozen}
