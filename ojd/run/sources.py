"""Where the labels of a run come from, and which frame they are of.

The loop asks its source once a frame. `InStep` lets the stream wait for the
teacher; `Late` goes on meanwhile and learns from an older frame when its labels
arrive; `ojd.run.network_source` has a simulated network between both.
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
  """Which student answers the frame at which something is learned."""

  LEARNED = "learned"  # the last forward pass of the training
  BEFORE = "before"  # the student as it was, before it hears of the labels
  AFTER = "after"  # the trained student: it learned from an older frame


class Example(NamedTuple):
  """What is learned from at a frame."""

  sample: Sample  # that the labels are of, as the learner sees it
  labels: Labels
  answered_by: AnsweredBy = AnsweredBy.LEARNED


class Context(NamedTuple):
  """What a source shares with its loop."""

  stats: RunStats
  stages: Stages
  executor: Executor
  labeler: labelers.Labeler
  knows: Callable[[int], bool]  # whether frame t is labelled without a teacher
  trajectory: trajectory.TrajectoryWriter | None
  report_fn: Callable[[str], None]  # takes what goes wrong, in a line
  compare_fn: Callable[[Any, np.ndarray, FrameRecord], None]


class InStep:
  """The stream waits for the labels of each key frame."""

  needs_readonly = False  # whether `predict_readonly` is used on key frames
  context: Context | None = None  # before `begin`

  def begin(self, context: Context) -> None:
    """Gets what it shares with the loop, before the first frame."""
    self.context = context

  def request(
    self, sample: Sample, record: FrameRecord
  ) -> tuple[Example | None, str]:
    """What to learn from at a frame, and why a key frame has no labels."""
    if not self.is_due():
      return None, ""
    labels, problem = self.ask(sample, record)
    return None if labels is None else Example(sample, labels), problem

  def is_due(self) -> bool:
    """Whether the teacher must see this frame."""
    return self.context.stats.clock == self.context.stats.next_key

  def learned(self, info: StepInfo, record: FrameRecord) -> int | None:
    """Passes on what was learned; frames until it answers, if there are any."""
    del info, record  # it answers at once
    return None

  def predicted(self, answer: np.ndarray, record: FrameRecord) -> None:
    """Takes the answer of a frame at which nothing was learned.

    A key frame may have gone by without labels, and a system may ask early.
    """
    del answer, record
    self.context.stats.next_key = self.context.executor.next_key()

  def expected(
    self, sample: Sample, labels: Labels | None, record: FrameRecord
  ) -> Any:
    """The teacher's answer to a frame that is judged by it; None: it has none.

    Args:
      sample: the frame.
      labels: those of this very frame, where it was learned from.
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
    """Whether a checkpoint follows this key frame; 0: none ever does."""
    return every > 0 and self.context.stats.num_keys % every == 0

  def can_pause(self) -> bool:
    """Whether a run could be resumed from here."""
    return True

  def dump(self) -> dict[str, Any] | None:
    """Its own state as JSON, for a checkpoint made now; None: it has none."""
    return None

  def summary(self) -> dict[str, Any]:
    """What it adds to summary.json."""
    return {}

  def ask(
    self, sample: Sample, record: FrameRecord, stage: str = "teacher"
  ) -> tuple[Labels | None, str]:
    """Waits for labels of a frame; None, and why, where there are none.

    Args:
      sample: the frame.
      record: gets the times.
      stage: `teacher`, or `eval_teacher` where the labels only judge.
    """
    stats, stages = self.context.stats, self.context.stages
    labeler = self.context.labeler
    is_known = self.context.knows(sample.t)
    stats.num_recalled += is_known
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
      # Apart from the answers: their mean is what the teacher takes.
      stages.add(f"{stage}_failed", spent)
      problem = stats.count_unlabelled(answer.problem, sample.t)
      self.log(lambda log: log.failed(sample.t, problem))
      return None, problem
    if not is_known:  # else no teacher was timed
      stages.add(stage, spent)
      setattr(record, f"ms_{stage}", stages.milliseconds(stage))
    return answer.labels, ""

  def _logged(self, t, stage):
    """What the teacher said before the run was interrupted, if it did."""
    log = self.context.trajectory
    kind = trajectory.KEY if stage == "teacher" else trajectory.EVAL
    found = log.known(kind, t) if log else None
    if found is None:
      return None
    labels = found.labels()
    if labels is not None:
      return labels, ""
    self.context.stats.count_unlabelled(found.problem)
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
  """The stream goes on while the teacher works (`--async_teacher`).

  A key frame is answered by the student as it is. When its labels arrive the
  student learns from that older frame, and then answers the frame at hand. One
  question is open at most, and it is first looked after on the frame that
  follows: labels are at least one frame late. The last may stay unanswered.
  """

  needs_readonly = True

  def __init__(self, is_judged_by_answers: bool):
    """Begins with no question.

    Args:
      is_judged_by_answers: whether the student is judged by what the teacher is
        asked anyway, so that nothing waits for a judgement.
    """
    self._is_judged_by_answers = is_judged_by_answers
    self._is_open = False
    self._asked_answer: np.ndarray | None = None  # the student's, when asked
    # The teacher's answer, where it was waited for to judge a frame.
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
      problem = stats.count_unlabelled(answer.problem, answer.sample.t)
      self.log(lambda log: log.failed(sample.t, problem))
    if self.is_due() and not self._is_open:
      with self.context.stages("ask"):
        self.context.labeler.ask(sample)
      self._is_open = record.asked = True
    return None, problem

  def _poll(self):
    """The answer to the open question, once it is there."""
    if not self._is_open:
      return None
    answer, self._early = self._early, None
    if answer is None:
      with self.context.stages("ask"):
        answer = self.context.labeler.answer(wait=False)
    self._is_open = answer is None
    return answer

  def _note(self, answer, sample, record):
    """Counts labels that have arrived, and judges the student by them."""
    stats, stages = self.context.stats, self.context.stages
    if self._is_judged_by_answers:
      expected = answer.labels.classes
      self.context.compare_fn(expected, self._asked_answer, record)
      record.eval_t = answer.sample.t
    record.key_t = answer.sample.t
    record.delay = sample.t - answer.sample.t
    stats.total_delay += record.delay
    is_known = self.context.knows(answer.sample.t)
    stats.num_recalled += is_known
    if not is_known:
      stages.add("teacher_async", answer.seconds)
      record.ms_teacher = stages.milliseconds("teacher_async")

  def predicted(self, answer, record):
    super().predicted(answer, record)
    if record.asked:
      self._asked_answer = answer

  def expected(self, sample, labels, record):
    if self._is_judged_by_answers:
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
