"""What key frames and the frames between them cost, layer by layer."""

from collections.abc import Callable
from typing import NamedTuple

from ojd.errors import UserError
from ojd.models.delta import sites as sites_lib
from ojd.models.delta.changes import Change
from ojd.models.delta.sites import Site
from ojd.models.student import Student


class Row(NamedTuple):
  """One convolution."""

  name: str
  key: int  # multiply-accumulates on a key frame
  delta: int  # and on a frame between


class Cost(NamedTuple):
  """Of a frame, multiply-accumulates of the convolutions / 1e9."""

  key: float
  delta: float
  amortised: float  # the mean over the frames from one key frame to the next


def table(
  student: Student,
  change: Change | Callable[[Site], Change | None],
  height: int,
  width: int,
) -> list[Row]:
  """A row a convolution, in the order they run; computes nothing.

  Args:
    student: of `from_linen`.
    change: of all converted layers, or of each; None: runs whole. While gates
      learn both of a layer's students run.
    height: H of the frame.
    width: W of the frame.
  """
  change_of = change if callable(change) else lambda site: change
  found = sites_lib.trace(student, height, width)
  inner = {site.path for site in sites_lib.converted(found)}

  def delta(site):
    change = change_of(site) if site.path in inner else None
    return change.macs(site) if change else site.macs

  return [Row(site.name, site.macs, delta(site)) for site in found]


def cost(rows: list[Row], interval: int) -> Cost:
  """Of frames of which every interval-th is a key frame."""
  if interval < 1:
    raise UserError(f"--interval={interval}: at least 1")
  key, delta = (
    sum(getattr(row, name) for row in rows) / 1e9 for name in ("key", "delta")
  )
  return Cost(key, delta, (key + (interval - 1) * delta) / interval)
