"""What of a run goes into its checkpoints, and how it is gone on with."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd.distill import State
from ojd.run import checkpoints, tally, workdir
from ojd.run import job as job_lib
from ojd.types import Array

# Of the checkpoints older than the newest two, one in so many frames is kept.
KEEP_EVERY = 1000


class Kept(NamedTuple):
  """The arrays of a run."""

  system: State
  reference: Array  # [H, W] uint8, the latest labels, for the overlay


def abstract(job: job_lib.Job) -> Kept:
  """Types and shapes of what is kept of a job's run."""
  spec = job.stream.spec
  reference = jax.ShapeDtypeStruct((spec.height, spec.width), np.uint8)
  return Kept(job_lib.abstract_state(job), reference)


class Point(NamedTuple):
  """A moment of a run: everything that it takes to go on from there."""

  t: int  # index of the frame that comes next
  state: State
  reference: np.ndarray | None  # [H, W] uint8; None before the first labels
  reference_t: int | None  # the frame of those labels
  tally: tally.Tally
  seconds: dict[str, float]  # of every stage
  counts: dict[str, int]


class Keeper:
  """The checkpoints of one run."""

  def __init__(self, path: pathlib.Path, abstract: Kept, about: dict[str, Any]):
    """Names the workdir; nothing is made before the first point.

    Args:
      path: the workdir.
      abstract: types and shapes of what is kept.
      about: JSON; which run this is.
    """
    self._path, self._abstract, self._about = path, abstract, about
    self._checkpoints = checkpoints.Checkpoints(
      path / workdir.CHECKPOINTS, KEEP_EVERY
    )
    self._latest: int | None = None

  def latest(
    self, at_most: int | None = None
  ) -> tuple[Point | None, list[str]]:
    """The point to go on from, and why any later one cannot be.

    The metrics must reach as far as the point does.

    Args:
      at_most: points of later frames are passed over.
    """
    num_lines = _num_lines(self._path / workdir.METRICS)
    problems = []
    while True:
      found, damaged = self._checkpoints.restore_latest(self._abstract, at_most)
      problems += damaged
      if found is None:
        return None, problems
      point = _point(found)
      if point.tally.num_frames <= num_lines:
        self._latest = found.t
        point.tally.num_resumed += 1
        return point, problems
      problems.append(f"the metrics end before frame {found.t}")
      at_most = found.t - 1

  def keep(self, point: Point, before: Callable[[], None]) -> None:
    """Writes a point while the run goes on.

    Args:
      point: its state's buffers are the caller's again on return.
      before: waits until all files of the run have come so far.
    """
    if point.t == self._latest:
      return
    meta = {
      "tally": tally.to_json(point.tally),
      "seconds": point.seconds,
      "counts": point.counts,
      "reference_t": point.reference_t,
      "run": self._about,
    }
    reference = point.reference
    if reference is None:
      reference = np.zeros(self._abstract.reference.shape, np.uint8)
    kept = Kept(point.state, reference)
    self._checkpoints.save(point.t, kept, meta, before)
    self._latest = point.t

  def steps(self) -> list[int]:
    """The frames that come next at every point kept."""
    return self._checkpoints.steps()

  def close(self) -> None:
    """Waits until all is written."""
    self._checkpoints.close()


def _point(found: checkpoints.Restored) -> Point:
  meta, reference = found.meta, None
  if meta["reference_t"] is not None:
    reference = np.asarray(found.state.reference)
  return Point(
    t=found.t,
    state=found.state.system,
    reference=reference,
    reference_t=meta["reference_t"],
    tally=tally.from_json(meta["tally"]),
    seconds=meta["seconds"],
    counts=meta["counts"],
  )


def _num_lines(path):
  """Whole lines of a file; 0 where there is none."""
  if not path.exists():
    return 0
  with path.open("rb") as file:
    return sum(line.endswith(b"\n") for line in file)
