"""Label sources: where a run gets labels from, and for which frame.

The loop asks its source once a frame. With `InStep` the stream waits for the
teacher. With `Late` the stream continues, and the student learns from an older
frame when its labels arrive. `ojd.run.network_source` simulates a network
between teacher and student.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ojd.run import trajectory
from ojd.run.executor import Executor
from ojd.run.stats import RunStats, Stages
from ojd.run.writers import FrameRecord
from ojd.teachers import labelers
from ojd.types import Labels, Sample, StepInfo


class AnsweredBy(enum.Enum):
  """Which student answers the frame at which the student learns."""

  LEARNED = "learned"  # the last forward pass of the training
  BEFORE = "before"  # the student before the update
  AFTER = "after"  # the updated student, which learned from an older frame


class Example(NamedTuple):
  """What the student learns from at a frame."""

  sample: Sample  # the labeled frame, as the learner gets it
  labels: Labels
  answered_by: AnsweredBy = AnsweredBy.LEARNED


class Context(NamedTuple):
  """What a source shares with its loop."""

  stats: RunStats
  stages: Stages
  executor: Executor
  labeler: labelers.Labeler
  knows: Callable[[int], bool]  # whether the labels of frame t are on record
  trajectory: trajectory.TrajectoryWriter | None
  report_fn: Callable[[str], None]  # takes a problem, in one line
  compare_fn: Callable[[Any, np.ndarray, FrameRecord], None]


class InStep:
  """The stream waits for the labels of each key frame."""

  needs_readonly = False  # whether `predict_readonly` is used on key frames
  context: Context | None = None  # before `begin`

  def begin(self, context: Context) -> None:
    """Takes what it shares with the loop, before the first frame."""
    self.context = context

  def request(
    self, sample: Sample, record: FrameRecord
  ) -> tuple[Example | None, str]:
    """The example to learn from at a frame, or why it has no labels."""
    if not self.is_due():
      return None, ""
    labels, problem = self.ask(sample, record)
    return None if labels is None else Example(sample, labels), problem

  def is_due(self) -> bool:
    """Whether the teacher must see this frame."""
    return self.context.stats.clock == self.context.stats.next_key

  def learned(self, info: StepInfo, record: FrameRecord) -> int | None:
    """Takes an update; returns the frames until it is in use; None: at once."""
    del info, record
    return None

  def predicted(self, answer: np.ndarray, record: FrameRecord) -> None:
    """Takes the answer to a frame without an update.

    It asks the system for the next key frame again: a key frame may have got no
    labels, and a system may want the next one early.
    """
    del answer, record
    self.context.stats.next_key = self.context.executor.next_key()

  def expected(
    self, sample: Sample, labels: Labels | None, record: FrameRecord
  ) -> Any:
    """The teacher's classes to evaluate a frame with; None if there are none.

    Args:
      sample: the frame.
      labels: of this frame, if the student learned from it.
      record: of the frame.
    """
    if labels is None:
      labels, problem = self.ask(sample, record, stage="eval_teacher")
      if labels is not None:
        self.log(lambda log: log.evaluated(sample.t, labels))
      elif problem != labelers.DEFERRED:
        self.context.report_fn(problem)
    return None if labels is None else labels.classes

  def is_checkpoint_due(self, every: int) -> bool:
    """Whether a checkpoint is due after this key frame; `every` 0: never."""
    return every > 0 and self.context.stats.num_keys % every == 0

  def can_pause(self) -> bool:
    """Whether a run can resume from here."""
    return True

  def dump(self) -> dict[str, Any] | None:
    """The source's own state as JSON, for a checkpoint; None if it has none."""
    return None

  def summary(self) -> dict[str, Any]:
    """The source's entries in summary.json."""
    return {}

  def ask(
    self, sample: Sample, record: FrameRecord, stage: str = "teacher"
  ) -> tuple[Labels | None, str]:
    """Waits for the labels of a frame; returns None and the reason without any.

    Args:
      sample: the frame.
      record: gets the times.
      stage: `teacher`, or `eval_teacher` if the labels are only for evaluation.
    """
    stats, stages = self.context.stats, self.context.stages
    labeler = self.context.labeler
    is_known = self.context.knows(sample.t)
    stats.num_cached_labels += is_known
    logged = self._logged(sample.t, stage)
    if logged is not None:
      return logged
    start = stages.elapsed()
    labeler.ask(sample)
    answer = labeler.answer(wait=True)
    spent = stages.elapsed() - start - answer.waited
    if answer.waited:
      stages.add("wait", answer.waited)
      record.ms_wait = stages.milliseconds("wait")
    if answer.labels is None:
      # Failures count apart from the answers, whose mean is the teacher's time.
      stages.add(f"{stage}_failed", spent)
      problem = stats.count_unlabeled(answer.problem, sample.t)
      self.log(lambda log: log.failed(sample.t, problem))
      return None, problem
    if not is_known:  # recorded labels take the teacher no time
      stages.add(stage, spent)
      setattr(record, f"ms_{stage}", stages.milliseconds(stage))
    return answer.labels, ""

  def _logged(self, t, stage):
    """The logged labels from before the run was interrupted, if any."""
    log = self.context.trajectory
    kind = trajectory.KEY if stage == "teacher" else trajectory.EVAL
    found = log.known(kind, t) if log else None
    if found is None:
      return None
    labels = found.labels()
    if labels is not None:
      return labels, ""
    self.context.stats.count_unlabeled(found.problem)
    self.log(lambda log: log.failed(t, found.problem))
    return None, found.problem

  def log(self, add: Callable[[trajectory.TrajectoryWriter], str]) -> None:
    """Adds to the trajectory, if there is one."""
    if self.context.trajectory is not None:
      with self.context.stages("trajectory"):
        problem = add(self.context.trajectory)
      if problem:
        self.context.report_fn(problem)


class Late(InStep):
  """The stream continues while the teacher works (`--async_teacher`).

  The student answers a key frame without an update. When the labels arrive, the
  student learns from that older frame and then answers the current one. At most
  one request is open. The source polls it from the next frame on, so labels are
  at least one frame late. The last request may stay without an answer.
  """

  needs_readonly = True

  def __init__(self, is_evaluated_on_keys: bool):
    """Starts without an open request.

    Args:
      is_evaluated_on_keys: whether to evaluate the student only with the labels
        of key frames, so that the stream never waits for an evaluation.
    """
    self._is_evaluated_on_keys = is_evaluated_on_keys
    self._is_open = False
    self._asked_answer: np.ndarray | None = None  # student's, at the request
    # The teacher's answer, if an evaluation has already waited for it.
    self._early: labelers.Answer | None = None

  def begin(self, context):
    super().begin(context)
    context.stats.total_delay = context.stats.total_delay or 0

  def request(self, sample, record):
    stats, problem = self.context.stats, ""
    answer = self._poll()
    if answer is not None and answer.labels is not None:
      self._note(answer, sample, record)
      example = Example(answer.sample, answer.labels, AnsweredBy.AFTER)
      return example, ""
    if answer is not None:
      problem = stats.count_unlabeled(answer.problem, answer.sample.t)
      self.log(lambda log: log.failed(sample.t, problem))
    if self.is_due() and not self._is_open:
      with self.context.stages("ask"):
        self.context.labeler.ask(sample)
      self._is_open = record.asked = True
    return None, problem

  def _poll(self):
    """The answer to the open request, once it has arrived."""
    if not self._is_open:
      return None
    answer, self._early = self._early, None
    if answer is None:
      with self.context.stages("ask"):
        answer = self.context.labeler.answer(wait=False)
    self._is_open = answer is None
    return answer

  def _note(self, answer, sample, record):
    """Counts labels that have arrived, and evaluates the student with them."""
    stats, stages = self.context.stats, self.context.stages
    if self._is_evaluated_on_keys:
      expected = answer.labels.classes
      self.context.compare_fn(expected, self._asked_answer, record)
      record.eval_t = answer.sample.t
    record.key_t = answer.sample.t
    record.delay = sample.t - answer.sample.t
    stats.total_delay += record.delay
    is_known = self.context.knows(answer.sample.t)
    stats.num_cached_labels += is_known
    if not is_known:
      stages.add("teacher_async", answer.seconds)
      record.ms_teacher = stages.milliseconds("teacher_async")

  def predicted(self, answer, record):
    super().predicted(answer, record)
    if record.asked:
      self._asked_answer = answer

  def expected(self, sample, labels, record):
    if self._is_evaluated_on_keys:
      return None
    if self._is_open and self._early is None:
      start = self.context.stages.elapsed()
      self._early = self.context.labeler.answer(wait=True)
      self.context.stages.add(
        "eval_teacher", self.context.stages.elapsed() - start
      )
    if self._early is not None and self._early.sample.t == sample.t:
      labels = self._early.labels
      return None if labels is None else labels.classes
    return super().expected(sample, labels, record)
