"""What the workers of a comparison are asked, and what they answer."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
  # Whoever only passes tasks on has no use for jax.
  from ojd.run.config import RunConfig


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
