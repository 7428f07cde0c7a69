"""What of a run goes into its checkpoints, and how it is gone on with."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd.distill import State
from ojd.run import checkpoints, workdir
from ojd.run import job as job_lib
from ojd.run import stats as stats_lib
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


class Snapshot(NamedTuple):
  """A moment of a run: everything that it takes to go on from there."""

  t: int  # index of the frame that comes next
  state: State
  reference: np.ndarray | None  # [H, W] uint8; None before the first labels
  reference_t: int | None  # the frame of those labels
  stats: stats_lib.RunStats
  seconds: dict[str, float]  # of every stage
  counts: dict[str, int]


class Checkpointer:
  """The checkpoints of one run."""

  def __init__(self, path: pathlib.Path, abstract: Kept, about: dict[str, Any]):
    """Names the workdir; nothing is made before the first snapshot.

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
  ) -> tuple[Snapshot | None, list[str]]:
    """The snapshot to go on from, and why any later one cannot be.

    The metrics must reach as far as the snapshot does.

    Args:
      at_most: snapshots of later frames are passed over.
    """
    num_lines = _num_lines(self._path / workdir.METRICS)
    problems = []
    while True:
      found, damaged = self._checkpoints.restore_latest(self._abstract, at_most)
      problems += damaged
      if found is None:
        return None, problems
      snapshot = _snapshot(found)
      if snapshot.stats.num_frames <= num_lines:
        self._latest = found.t
        snapshot.stats.num_resumed += 1
        return snapshot, problems
      problems.append(f"the metrics end before frame {found.t}")
      at_most = found.t - 1

  def save(self, snapshot: Snapshot, before: Callable[[], None]) -> None:
    """Writes a snapshot while the run goes on.

    Args:
      snapshot: its state's buffers are the caller's again on return.
      before: waits until all files of the run have come so far.
    """
    if snapshot.t == self._latest:
      return
    meta = {
      "stats": snapshot.stats.to_json(),
      "seconds": snapshot.seconds,
      "counts": snapshot.counts,
      "reference_t": snapshot.reference_t,
      "run": self._about,
    }
    reference = snapshot.reference
    if reference is None:
      reference = np.zeros(self._abstract.reference.shape, np.uint8)
    kept = Kept(snapshot.state, reference)
    self._checkpoints.save(snapshot.t, kept, meta, before)
    self._latest = snapshot.t

  def steps(self) -> list[int]:
    """The frames that come next at every snapshot kept."""
    return self._checkpoints.steps()

  def close(self) -> None:
    """Waits until all is written."""
    self._checkpoints.close()


def _snapshot(found: checkpoints.Restored) -> Snapshot:
  meta, reference = found.meta, None
  if meta["reference_t"] is not None:
    reference = np.asarray(found.state.reference)
  return Snapshot(
    t=found.t,
    state=found.state.system,
    reference=reference,
    reference_t=meta["reference_t"],
    stats=stats_lib.RunStats.from_json(meta["stats"]),
    seconds=meta["seconds"],
    counts=meta["counts"],
  )


def _num_lines(path):
  """Whole lines of a file; 0 where there is none."""
  if not path.exists():
    return 0
  with path.open("rb") as file:
    return sum(line.endswith(b"\n") for line in file)
