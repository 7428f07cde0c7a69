"""`--async_teacher`: the host loop that does not wait for its teacher.

A key frame is asked about and answered by the student as it is. When the labels
arrive the student learns from that older frame, and then answers the frame at
hand. A question is first looked after on the frame that follows, so that labels
are one frame late at least; the very first frames are answered by a student
that has learnt nothing.
"""

import numpy as np

from ojd.run import loop
from ojd.teachers import labelers
from ojd.types import Sample


class LateLoop(loop.Loop):
  """A run with one question open at most; the last may stay unanswered."""

  needs_peek = True

  def __init__(self, *args, **kwargs):
    """Takes what a Loop takes."""
    super().__init__(*args, **kwargs)
    self.stats.total_delay = 0
    self._is_open = False
    self._asked_classes: np.ndarray | None = None  # the student's answer then
    # The answer to the open question, where it was had to be waited for.
    self._early: labelers.Answer | None = None

  def _step(self, sample: Sample, line):
    answer, problem = self._poll(), ""
    if answer is not None and answer.labels is not None:
      classes, info = self._learn_late(answer, sample, line)
      return classes, info, None, ""
    if answer is not None:
      problem = self.stats.count_unlabelled(answer.problem, answer.sample.t)
      self._leave(lambda log: log.failed(sample.t, problem))
      self.stats.next_key = int(self.system.next_key(self.state))
    is_asked = self.stats.clock == self.stats.next_key
    if is_asked and not self._is_open:
      with self.stages("ask"):
        self.labeler.ask(sample)
      self._is_open = line["asked"] = True
    classes = self._predict(sample, line)
    if "asked" in line:
      self._asked_classes = classes
    return classes, None, None, problem.removeprefix(labelers.DEFERRED)

  def _poll(self):
    """The answer to the open question, once it is there."""
    if not self._is_open:
      return None
    answer, self._early = self._early, None
    if answer is None:
      with self.stages("ask"):
        answer = self.labeler.answer(wait=False)
    self._is_open = answer is None
    return answer

  def _learn_late(self, answer: labelers.Answer, sample: Sample, line):
    """Learns from the frame asked about, then answers this one."""
    if self._is_judged_by_answers():
      self._compare(answer.labels.classes, self._asked_classes, line)
      line["eval_t"] = answer.sample.t
    delay = sample.t - answer.sample.t
    self.stats.total_delay += delay
    line.update(key_t=answer.sample.t, delay=delay)
    is_known = self.knows(answer.sample.t)
    self.stats.num_recalled += is_known
    if not is_known:
      self.stages.add("teacher_async", answer.seconds)
      line["ms_teacher"] = self.stages.milliseconds("teacher_async")
    # It moves the system's clock on by one, for this frame.
    _, info = self._learn(answer.sample, answer.labels, line)
    with self.stages("predict"):
      classes = np.asarray(self.system.peek(self.state, sample.frame))
    line["ms_predict"] = self.stages.milliseconds("predict")
    return classes, info

  def _is_judged_by_answers(self):
    """Without labels of its own, and with no wish to stop the stream for it."""
    is_unlabelled = self.job.truth_groups is None
    return is_unlabelled and self.job.config.eval_every is None

  def _ask_to_judge(self, sample, labels, line):
    """Waits, as was asked for: for the open question, then for this one."""
    if self._is_judged_by_answers():
      return None
    if self._is_open and self._early is None:
      start = self.stages.elapsed()
      self._early = self.labeler.answer(wait=True)
      self.stages.add("eval_teacher", self.stages.elapsed() - start)
    if self._early is not None and self._early.sample.t == sample.t:
      labels = self._early.labels
      return None if labels is None else labels.classes
    return super()._ask_to_judge(sample, labels, line)
