"""The host loop: a frame at a time from the stream into files.

On a key frame the teacher is asked and the system learns; on every other frame
it predicts. Only after a key frame does the host ask the device for the next.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ojd import labels as labels_lib
from ojd import metrics, systems
from ojd.run import checkpoint as checkpoint_lib
from ojd.run import config as config_lib
from ojd.run import gallery as gallery_lib
from ojd.run import job as job_lib
from ojd.run import outputs as outputs_lib
from ojd.run import stats as stats_lib
from ojd.run import trajectory, workdir, writers
from ojd.streams import base as streams
from ojd.streams import prefetch
from ojd.teachers import labelers
from ojd.types import Labels, Sample, StepInfo, check_frame

# Without labels of its own the stream is judged by the teacher, which costs.
EVAL_EVERY_BY_TEACHER = 30

ProgressFn = Callable[[stats_lib.Progress], None]


class Loop:
  """One run: the state of the system, the counts, the clock, the files."""

  needs_peek = False  # of the system, once compiled

  def __init__(
    self,
    job: job_lib.Job,
    path: pathlib.Path,
    *,
    stages: stats_lib.Stages | None = None,
    progress_fn: ProgressFn = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    compiled: job_lib.Compiled | None = None,
    labeler: labelers.Labeler | None = None,
    checkpointer: checkpoint_lib.Checkpointer | None = None,
    start: checkpoint_lib.Snapshot | None = None,
    trajectory_writer: trajectory.TrajectoryWriter | None = None,
    knows: Callable[[int], bool] = lambda t: False,
    outputs: outputs_lib.Outputs | None = None,
  ):
    """Opens the files of a run in `path`, a folder made for it.

    Args:
      job: what to run.
      path: the workdir.
      stages: the clock; of a start that began earlier, for instance.
      progress_fn: called after every frame.
      should_stop: asked before every frame.
      compiled: the job's system, where it was compiled before.
      labeler: asks the teacher; None for the one that the job names. It is
        closed at the end of the run.
      checkpointer: of the checkpoints, where there are to be some; it is closed
        likewise.
      start: where to go on; None for the beginning.
      trajectory_writer: of the teacher's answers; None keeps none. Closed too.
      knows: whether the labeler needs no teacher to label frame t.
      outputs: what it writes; None for the files that the job asks for.
    """
    self.job, self.path = job, path
    self.progress_fn, self.should_stop = progress_fn, should_stop
    self.stages = stages or stats_lib.Stages()
    self.system = compiled
    self.labeler = labeler or job_lib.make_labeler(job)
    self.checkpointer, self._start = checkpointer, start
    self.trajectory = trajectory_writer
    self.knows = knows
    self.reference = outputs_lib.reference_of(start)
    if start is None:
      self.stats, self.next_t = (
        stats_lib.RunStats.empty(len(job.groups.names)),
        0,
      )
    else:
      self.stats, self.next_t = start.stats, start.t
      self.stages.restore(start.seconds, start.counts)
    self.outputs = outputs or outputs_lib.Outputs(job, path, start)

  def run(self) -> dict[str, Any]:
    """Goes through the stream; whatever happens, writes the summary."""
    try:
      with contextlib.ExitStack() as files:
        files.callback(self.labeler.close)
        files.callback(self._close_trackers)
        for holder in (self.trajectory, self.checkpointer):
          if holder is not None:
            files.callback(holder.close)
        files.callback(self._close_outputs)
        self._compile()
        is_over = self._go_through()
        spec = self.job.stream.spec
        self.stats.gmac_per_frame = stats_lib.gmac_per_frame(
          *(self.job.system, self.job.student),
          self.system.read(self.state),
          height=spec.height,
          width=spec.width,
          num_frames=self.stats.clock,
        )
        self._keep()
      # Only now is every file whole.
      self.stats.finished = is_over
    finally:
      summary = self.summary()
      workdir.write_json(self.path / workdir.SUMMARY, summary)
    return summary

  def _close_outputs(self):
    with self.stages("write"):
      self.outputs.close()

  def _close_trackers(self):
    problem = self.outputs.close_trackers()
    if problem:
      self._report_progress(problem)

  def _compile(self):
    with self.stages("compile"):
      spec, seed = self.job.stream.spec, self.job.config.seed
      if self.system is None:
        self.system = job_lib.compile_system(
          self.job.system, spec.height, spec.width, seed, self.needs_peek
        )
      if self._start is None:
        self.state = jax.block_until_ready(self.system.init())
      else:
        self.state = self.system.take(self._start.state)
        self._start = None
      if self.outputs.wants_keys and self.system.peek is None:
        jax.block_until_ready(gallery_lib.copy(self.state))
      self.stats.next_key = int(self.system.next_key(self.state))

  def _go_through(self):
    """Takes every frame; returns whether the stream is over."""
    samples = self._read_ahead()
    iterator = iter(samples)
    try:
      while not self._is_over():
        if self.should_stop():
          return False
        with self.stages("read"):
          sample = next(iterator, None)
        if sample is None:
          if self.should_stop():
            return False
          break
        num_keys = self.stats.num_keys
        self._take(sample)
        self.next_t = sample.t + 1
        if self.stats.num_keys > num_keys and self._is_checkpoint_due():
          self._keep()
      if not self.stats.num_frames:
        raise RuntimeError("no frame of the stream could be read")
      return True
    finally:
      samples.close()

  def _read_ahead(self):
    """Samples from here on; those of a live stream as fresh as can be."""
    stream = self.job.stream
    samples = stream.read(self.next_t)
    if not stream.spec.is_live:
      return prefetch.Prefetcher(samples, should_stop=self.should_stop)
    interrupt = functools.partial(streams.close, stream)
    return prefetch.Prefetcher(samples, 1, self.should_stop, interrupt)

  def _is_checkpoint_due(self):
    every = self.job.config.checkpoint_every
    return every > 0 and self.stats.num_keys % every == 0

  def _keep(self):
    """Makes a checkpoint of this moment, if the run has any."""
    if self.checkpointer is None:
      return
    with self.stages("checkpoint"):
      wait = self.outputs.cut()
      snapshot = checkpoint_lib.Snapshot(
        t=self.next_t,
        state=self.system.read(self.state),
        reference=self.reference.classes,
        reference_t=self.reference.t,
        stats=self.stats,
        seconds=dict(self.stages.seconds),
        counts=dict(self.stages.counts),
      )
      self.checkpointer.save(snapshot, wait)

  def _is_over(self):
    limit = self.job.config.num_frames
    return limit is not None and self.next_t >= limit

  def _take(self, sample: Sample):
    """One frame, from the stream's sample to the last file."""
    if sample.frame is None:
      self.stats.num_skipped += 1
      self._report_progress(f"frame {sample.t} skipped: {sample.problem}")
      return
    check_frame("the stream's frame", sample.frame)
    news = self.labeler.poll()
    if news:
      self._report_progress(news)
    line = {"t": sample.t, "is_key": False}
    classes, info, labels, problem = self._step(sample, line)
    if not self.stats.num_frames:
      self.stats.first_frame_seconds = self.stages.elapsed()
    line["stride"] = self.stats.stride
    truth = self._evaluate(sample, classes, labels, line)
    self.stats.num_frames += 1
    with self.stages("write"):
      trouble = self.outputs.write(
        writers.FrameRecord(**line),
        sample=sample,
        classes=classes,
        truth=truth,
        reference=self.reference,
        miou=self.stats.miou(),
      )
    self._report_progress("; ".join(filter(None, (problem, trouble))))

  def _step(self, sample, line):
    """The system's part of a frame; completes its line.

    Returns:
      The student's classes, the StepInfo of a key frame, the labels of this
      very frame where there are some, and what went wrong with the teacher.
    """
    labels, problem = None, ""
    if self.stats.clock == self.stats.next_key:
      labels, problem = self._ask_teacher(sample, line)
    if labels is not None:
      return *self._learn(sample, labels, line), labels, ""
    classes = self._predict(sample, line)
    if problem:  # the key frame passed without being learnt from
      self.stats.next_key = int(self.system.next_key(self.state))
    return classes, None, None, problem.removeprefix(labelers.DEFERRED)

  def _ask_teacher(self, sample, line, stage="teacher"):
    """Waits for labels; None, and why, where there are none."""
    is_known = self.knows(sample.t)
    self.stats.num_recalled += is_known
    known = self._recall(sample.t, stage)
    if known is not None:
      return known
    start = self.stages.elapsed()
    self.labeler.ask(sample)
    answer = self.labeler.answer(wait=True)
    spent = self.stages.elapsed() - start - answer.waited
    if answer.waited:
      self.stages.add("wait", answer.waited)
      line["ms_wait"] = self.stages.milliseconds("wait")
    if answer.labels is None:
      # Apart from the answers: their mean is what the teacher takes.
      self.stages.add(f"{stage}_failed", spent)
      problem = self.stats.count_unlabelled(answer.problem, sample.t)
      self._leave(lambda log: log.failed(sample.t, problem))
      return None, problem
    if not is_known:  # else there was no teacher to be timed
      self.stages.add(stage, spent)
      line[f"ms_{stage}"] = self.stages.milliseconds(stage)
    return answer.labels, ""

  def _recall(self, t, stage):
    """What the teacher said before the run was interrupted, if it did."""
    is_key = stage == "teacher"
    kind = trajectory.KEY if is_key else trajectory.EVAL
    record = self.trajectory.known(kind, t) if self.trajectory else None
    if record is None:
      return None
    labels = record.labels()
    if labels is not None:
      return labels, ""
    self.stats.count_unlabelled(record.problem)
    self._leave(lambda log: log.failed(t, record.problem))
    return None, record.problem

  def _leave(self, add):
    """Adds to the trajectory, if there is one."""
    if self.trajectory is not None:
      with self.stages("trajectory"):
        problem = add(self.trajectory)
      if problem:
        self._report_progress(problem)

  def _learn(self, sample, labels: Labels, line):
    index = self.stats.num_keys
    before = self._answer_before(sample, index)
    with self.stages("learn"):
      self.state, classes, info = jax.block_until_ready(
        self.system.learn(self.state, sample.frame, labels)
      )
    info: StepInfo = jax.tree.map(lambda x: np.asarray(x).item(), info)
    delay = self._pass_on(info, line)
    self.stats.next_key = int(self.system.next_key(self.state))
    self.stats.count_key(info)
    line.update(writers.step_fields(info))
    line["ms_learn"] = self.stages.milliseconds("learn")
    self._leave(
      lambda log: log.learned(
        *(line["t"], labels, info),
        *(self.system.read(self.state), self.stats.next_key),
        key_t=line.get("key_t"),
        delay=delay,
      )
    )
    # A GPU's teacher leaves its labels there.
    self.reference = outputs_lib.Reference(np.asarray(labels.classes), sample.t)
    classes = np.asarray(classes)
    if before is not None:
      with self.stages("write"):
        record = gallery_lib.KeyRecord(
          t=line["t"],
          frame_t=sample.t,
          frame=sample.frame,
          labels=self.reference.classes,
          before=before,
          after=classes,
          info=info,
        )
        self.outputs.write_key(index, record)
    return classes, info

  def _pass_on(self, info: StepInfo, line) -> int | None:
    """Hands on what was learnt; frames until it answers, if there are any."""
    del info, line  # it answers at once
    return None

  def _answer_before(self, sample, index):
    """The student's classes before it learns; None where none are wanted."""
    if not self.outputs.wants_key(index):
      return None
    with self.stages("write"):
      return gallery_lib.answer(self.system, self.state, sample.frame)

  def _predict(self, sample, line):
    # The frame goes to the device and the classes come back; nothing else may.
    with self.stages("predict"), jax.transfer_guard("disallow"):
      frame = self.system.put(sample.frame)
      self.state, classes = self.system.predict(self.state, frame)
      classes = jax.device_get(classes)
    line.update(num_updates=0, ms_predict=self.stages.milliseconds("predict"))
    return classes

  def _evaluate(self, sample, classes, labels, line):
    """Compares with the truth, else now and then with the teacher."""
    groups, every = self.job.truth_groups, self.job.config.eval_every
    if every is None:
      every = 1 if groups else EVAL_EVERY_BY_TEACHER
    is_due = every > 0 and self.stats.clock % every == 0
    truth = None
    if groups is not None and (is_due or self.outputs.wants_pictures):
      with self.stages("evaluate"):
        truth = labels_lib.regrouped(groups, sample.truth)
    if not is_due:
      return truth
    expected = truth
    if groups is None:
      expected = self._ask_to_judge(sample, labels, line)
    if expected is not None:
      self._compare(expected, classes, line)
    return truth

  def _ask_to_judge(self, sample, labels, line):
    """The teacher's classes of a frame; None where it has no answer."""
    if labels is None:
      labels, problem = self._ask_teacher(sample, line, stage="eval_teacher")
      if labels is not None:
        self._leave(lambda log: log.evaluated(sample.t, labels))
      elif problem != labelers.DEFERRED:
        self._report_progress(problem)
    return None if labels is None else labels.classes

  def _compare(self, expected, classes, line):
    with self.stages("evaluate"):
      confusion = metrics.confusion_matrix(
        np.asarray(expected), classes, len(self.job.groups.names)
      )
      line["eval_miou"] = metrics.run_miou(confusion)
      self.stats.confusion += confusion
      self.stats.eval_frames += 1

  def _report_progress(self, problem):
    limits = (self.job.stream.spec.num_frames, self.job.config.num_frames)
    total = min((x for x in limits if x is not None), default=None)
    self.progress_fn(self.stats.progress(self.stages, total, problem))

  def summary(self) -> dict[str, Any]:
    """The content of summary.json."""
    return stats_lib.summarize(
      self.stats,
      self.stages,
      class_names=self.job.groups.names,
      has_truth=self.job.truth_groups is not None,
      is_teacher_free=self.labeler.is_free,
      num_interrupted=workdir.num_interrupted(self.path),
      costs=systems.costs_of(config_lib.bound_system(self.job.config)),
    )
