"""Writes a run's trajectory, and knows what it holds already.

Who goes on from a checkpoint comes by frames again that the teacher was asked
about before: those answers are taken from the log, and what is learnt of them
must be what was learnt then.
"""

import pathlib
from typing import Any, NamedTuple

from ojd.distill import State
from ojd.run import state_arrays, trajectory, trajectory_record
from ojd.run.trajectory_record import Decision, Record
from ojd.types import Labels, StepInfo


class Moments(NamedTuple):
  """When something was learnt, and of when it is."""

  t: int  # the frame at which it was learnt
  key_t: int | None = None  # the frame asked about, where that is an older one
  delay: int | None = None  # frames until it answers, where it does not at once


class Trail:
  """The trajectory of the run that is under way."""

  def __init__(
    self,
    folder: pathlib.Path,
    identity: dict[str, Any],
    *,
    start: int,
    is_repeatable: bool,
  ):
    """Opens the log, or makes it.

    Args:
      folder: of the log.
      identity: JSON; which run this is.
      start: the frame that the run goes on with.
      is_repeatable: whether the frames from there on will go as before; else
        what the log holds of them is dropped.
    """
    self._writer = trajectory.Writer(folder, identity)
    self.problem = self._writer.problem
    self._known: dict[tuple[str, int], Record] = {}
    if is_repeatable:
      records = trajectory.read(folder, identity)
      self._known = {(r.kind, r.t): r for r in records if r.t >= start}
    else:
      self._writer.truncate_from(start)

  def known(self, kind: str, t: int) -> Record | None:
    """What the teacher said, or that it failed, when it was asked before."""
    failed = self._known.get((trajectory_record.FAILED, t))
    return self._known.get((kind, t)) or failed

  def learnt(
    self,
    moments: Moments,
    labels: Labels,
    info: StepInfo,
    state: State,
    next_key: int,
  ) -> str:
    """Adds a key frame; says so where it went otherwise than before.

    Args:
      moments: when it was learnt from.
      labels: of the teacher.
      info: what was done, as plain numbers.
      state: of the system, afterwards.
      next_key: the next frame to ask about.
    """
    marks = state_arrays.marks(state_arrays.learnt(state))
    t, key_t, delay = moments
    decision = Decision(
      num_updates=info.num_updates,
      num_rolled_back=info.num_rolled_back,
      stride=info.stride,
      next_key=next_key,
      miou_before=info.miou_before,
      miou_after=info.miou_after,
      loss=info.loss,
      grad_norm=info.grad_norm,
      params_hash=marks.digest,
      leaf_hashes=marks.by_leaf,
      delay=delay if key_t is None else t - key_t,
      key_t=key_t,
    )
    return self._add(trajectory_record.key(t, labels, decision))

  def judged(self, t: int, labels: Labels) -> str:
    """Adds labels that the student was only judged by."""
    return self._add(trajectory_record.evaluation(t, labels))

  def failed(self, t: int, problem: str) -> str:
    """Adds a question without an answer."""
    return self._add(trajectory_record.failure(t, problem))

  def close(self) -> None:
    """Lets the log go; it is whole at any time."""
    self._writer.close()

  def _add(self, record):
    old = self._known.pop((record.kind, record.t), None)
    pack = trajectory_record.pack
    if old is not None and pack(old) == pack(record):
      return ""
    later = [t for t, _ in self._writer.records if t > record.t]
    if old is not None or later:
      self._writer.truncate_from(record.t)
      self._known = {}
    self._writer.append(record)
    if old is None:
      return ""
    return f"frame {record.t} went otherwise than before it was interrupted"
