"""The host loop: takes one frame after the other and writes the outputs.

On a key frame the system learns from the teacher's labels; on every other frame
it predicts. The label source decides which frames are key frames and when their
labels arrive. After each frame the system names the next key frame.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ojd import labels as labels_lib
from ojd import metrics, systems
from ojd.run import build, overlay, sources, trajectory, workdir
from ojd.run import checkpoint as checkpoint_lib
from ojd.run import config as config_lib
from ojd.run import outputs as outputs_lib
from ojd.run import stats as stats_lib
from ojd.run.executor import Executor
from ojd.run.sources import AnsweredBy, Example
from ojd.run.writers import FrameRecord
from ojd.streams import base as streams
from ojd.streams import prefetch
from ojd.teachers import labelers
from ojd.types import Sample, check_frame

# Streams without labels are evaluated against the teacher, which takes time.
EVAL_EVERY_BY_TEACHER = 30

ProgressFn = Callable[[stats_lib.Progress], None]


class Loop:
  """One run: its system, label source, statistics, clock and files."""

  def __init__(
    self,
    job: build.Job,
    path: pathlib.Path,
    source: sources.InStep,
    *,
    stages: stats_lib.Stages | None = None,
    progress_fn: ProgressFn = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    executor: Executor | None = None,
    labeler: labelers.Labeler | None = None,
    checkpointer: checkpoint_lib.Checkpointer | None = None,
    start: checkpoint_lib.Snapshot | None = None,
    trajectory_writer: trajectory.TrajectoryWriter | None = None,
    knows: Callable[[int], bool] = lambda t: False,
    outputs: outputs_lib.Outputs | None = None,
  ):
    """Opens the files of a run in `path`, which exists.

    Args:
      job: what to run.
      path: the workdir.
      source: of the labels.
      stages: the clock, for instance one that has already timed the start.
      progress_fn: called after every frame.
      should_stop: called before every frame; True ends the run.
      executor: of the job's system; None compiles one.
      labeler: asks the teacher; None for the one that the job names. The run
        closes it at its end.
      checkpointer: writes checkpoints; None for none. Closed too.
      start: the snapshot to resume from; None for the beginning.
      trajectory_writer: logs the teacher's labels; None for no log. Closed too.
      knows: whether the labels of frame t are on record.
      outputs: writes the frames; None for the files that the job asks for.
    """
    self.job, self.path = job, path
    self.progress_fn, self.should_stop = progress_fn, should_stop
    self.stages = stages or stats_lib.Stages()
    self.source, self.executor = source, executor
    self.labeler = labeler or build.make_labeler(job)
    self.checkpointer, self._start = checkpointer, start
    self.trajectory = trajectory_writer
    self.knows = knows
    self.reference = outputs_lib.reference_of(start)
    if start is None:
      self.stats = stats_lib.RunStats.empty(len(job.groups.names))
      self.next_t = 0
    else:
      self.stats, self.next_t = start.stats, start.t
      self.stages.restore(start.seconds, start.counts)
    self.outputs = outputs or outputs_lib.Outputs(job, path, start)

  def run(self) -> dict[str, Any]:
    """Runs over the stream; writes the summary even if that fails."""
    try:
      with contextlib.ExitStack() as files:
        files.callback(self.labeler.close)
        files.callback(self._close_trackers)
        for holder in (self.trajectory, self.checkpointer):
          if holder is not None:
            files.callback(holder.close)
        files.callback(self._close_outputs)
        self._begin()
        is_over = self._go_through()
        spec = self.job.stream.spec
        self.stats.gmac_per_frame = stats_lib.gmac_per_frame(
          *(self.job.system, self.job.student, self.executor.state),
          height=spec.height,
          width=spec.width,
          num_frames=self.stats.clock,
        )
        self._save()
      # All files are complete only now.
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

  def _begin(self):
    """Compiles the system and sets its state to that of the first frame."""
    with self.stages("compile"):
      if self.executor is None:
        self.executor = build.make_executor(
          self.job, with_readonly=self.source.needs_readonly
        )
      self.executor.begin(self._start.state if self._start else None)
      self._start = None
      if self.outputs.wants_keys:
        self.executor.warm_up_readonly()
      self.stats.next_key = self.executor.next_key()
    context = sources.Context(
      stats=self.stats,
      stages=self.stages,
      executor=self.executor,
      labeler=self.labeler,
      knows=self.knows,
      trajectory=self.trajectory,
      report_fn=self._report_progress,
      compare_fn=self._compare,
    )
    self.source.begin(context)

  def _go_through(self):
    """Takes every frame; returns whether the run reached its end."""
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
        if self.stats.num_keys > num_keys:
          every = self.job.config.checkpoint_every
          if self.source.is_checkpoint_due(every):
            self._save()
      if not self.stats.num_frames:
        raise RuntimeError("no frame of the stream could be read")
      return True
    finally:
      samples.close()

  def _read_ahead(self):
    """Reads samples ahead; of a live stream only one, so that it is fresh."""
    stream = self.job.stream
    samples = stream.read(self.next_t)
    if not stream.spec.is_live:
      return prefetch.Prefetcher(samples, should_stop=self.should_stop)
    interrupt = functools.partial(streams.close, stream)
    return prefetch.Prefetcher(samples, 1, self.should_stop, interrupt)

  def _save(self):
    """Saves a checkpoint, if the run has any and can pause here."""
    if not self.source.can_pause():
      return
    self.stats.link = self.source.dump()
    if self.checkpointer is None:
      return
    with self.stages("checkpoint"):
      wait = self.outputs.cut()
      snapshot = checkpoint_lib.Snapshot(
        t=self.next_t,
        state=self.executor.state,
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
    """Handles one frame, from the sample of the stream to the outputs."""
    if sample.frame is None:
      self.stats.num_skipped += 1
      self._report_progress(f"frame {sample.t} skipped: {sample.problem}")
      return
    check_frame("the stream's frame", sample.frame)
    news = self.labeler.poll()
    if news:
      self._report_progress(news)
    record, labels = FrameRecord(sample.t), None
    example, problem = self.source.request(sample, record)
    if example is None:
      answer, record.num_updates = self._predict(sample, record), 0
      self.source.predicted(answer, record)
    else:
      answer = self._learn(example, sample, record)
      if example.answered_by is not AnsweredBy.AFTER:
        labels = example.labels  # of this frame
    if not self.stats.num_frames:
      self.stats.first_frame_seconds = self.stages.elapsed()
    record.stride = self.stats.stride
    truth = self._evaluate(sample, answer, labels, record)
    self.stats.num_frames += 1
    with self.stages("write"):
      trouble = self.outputs.write(
        record,
        sample=sample,
        classes=answer,
        truth=truth,
        reference=self.reference,
        miou=self.stats.miou(),
      )
    problem = problem.removeprefix(labelers.DEFERRED)
    self._report_progress("; ".join(filter(None, (problem, trouble))))

  def _predict(self, sample, record, *, readonly=False):
    """Answers a frame; with `readonly` the state stays unchanged."""
    with self.stages("predict"):
      if readonly:
        answer = self.executor.predict_readonly(sample.frame)
      else:
        answer = self.executor.predict(sample.frame)
    record.ms_predict = self.stages.milliseconds("predict")
    return answer

  def _learn(self, example: Example, sample, record) -> np.ndarray:
    """Learns from an example; returns the answer to the current frame."""
    answer, frame, labels = None, example.sample.frame, example.labels
    if example.answered_by is AnsweredBy.BEFORE:
      answer = self._predict(sample, record, readonly=True)
    index, before = self.stats.num_keys, None
    if self.outputs.wants_key(index):
      with self.stages("write"):
        before = self.executor.predict_readonly(frame)
    with self.stages("learn"):
      after, info = self.executor.learn(frame, labels)
    delay = self.source.learned(info, record)
    self.stats.next_key = self.executor.next_key()
    self.stats.count_key(info)
    record.set_step(info)
    record.ms_learn = self.stages.milliseconds("learn")
    self.source.log(
      lambda log: log.learned(
        *(sample.t, labels, info, self.executor.state, self.stats.next_key),
        key_t=record.key_t,
        delay=delay,
      )
    )
    # The labels may be on a GPU.
    classes = np.asarray(labels.classes)
    self.reference = outputs_lib.Reference(classes, example.sample.t)
    if before is not None:
      with self.stages("write"):
        key_frame = overlay.KeyFrame(
          t=sample.t,
          frame_t=example.sample.t,
          frame=frame,
          labels=classes,
          before=before,
          after=after,
          info=info,
        )
        self.outputs.write_key(index, key_frame)
    if example.answered_by is AnsweredBy.AFTER:
      answer = self._predict(sample, record, readonly=True)
    return after if answer is None else answer

  def _evaluate(self, sample, answer, labels, record):
    """Evaluates an answer if due; returns the truth, if there is any."""
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
      expected = self.source.expected(sample, labels, record)
    if expected is not None:
      self._compare(expected, answer, record)
    return truth

  def _compare(self, expected, answer, record):
    with self.stages("evaluate"):
      confusion = metrics.confusion_matrix(
        np.asarray(expected), answer, len(self.job.groups.names)
      )
      record.eval_miou = metrics.run_miou(confusion)
      self.stats.confusion += confusion
      self.stats.eval_frames += 1

  def _report_progress(self, problem):
    limits = (self.job.stream.spec.num_frames, self.job.config.num_frames)
    total = min((x for x in limits if x is not None), default=None)
    self.progress_fn(self.stats.progress(self.stages, total, problem))

  def summary(self) -> dict[str, Any]:
    """The content of summary.json."""
    own = stats_lib.summarize(
      self.stats,
      self.stages,
      class_names=self.job.groups.names,
      has_truth=self.job.truth_groups is not None,
      is_teacher_free=self.labeler.is_free,
      num_interrupted=workdir.num_interrupted(self.path),
      costs=systems.costs_of(config_lib.bound_system(self.job.config)),
    )
    return own | self.source.summary()
