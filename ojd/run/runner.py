"""The host loop: a frame at a time from the stream into files.

On a key frame the teacher is asked and the system learns; on every other frame
it predicts. Only after a key frame does the host ask the device for the next.
"""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import metrics
from ojd.errors import RequestError
from ojd.run import job as job_lib
from ojd.run import overlay, prefetch, report, timing, workdir, writers
from ojd.run import tally as tally_lib
from ojd.run.config import RunConfig
from ojd.run.tally import Progress
from ojd.teachers import base as teachers
from ojd.types import Labels, Sample, StepInfo, check_frame

TEACHER_TRIES = 3
# Without labels of its own the stream is judged by the teacher, which costs.
EVAL_EVERY_BY_TEACHER = 30


ProgressFn = Callable[[Progress], None]


class Outcome(NamedTuple):
  """What became of a request to run."""

  status: workdir.Status  # of the folder before
  summary: dict[str, Any]


def run(
  config: RunConfig,
  command: str,
  *,
  progress_fn: ProgressFn = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
  """Runs a checked config in its workdir; a finished one is left as it is.

  Args:
    config: of `config.check`.
    command: how to run this again, for the report.
    progress_fn: called after every frame.
    should_stop: asked before every frame; True ends the run cleanly.
  """
  stages = timing.Stages()
  job = job_lib.make_job(config)
  path = workdir.expand(config.workdir)
  description = workdir.describe_run(
    config, job.stream.spec.identity, job.groups.names, command
  )
  workdir.inspect(path, description)  # before anything is written into it
  with workdir.claim(path):
    status = workdir.inspect(path, description)
    if status is workdir.Status.FINISHED:
      summary = workdir.read_summary(path)
      if not (path / workdir.REPORT / "index.html").exists():
        report.write_report(path)
      return Outcome(status, summary)
    if status is workdir.Status.UNFINISHED:
      workdir.set_aside(path)
    workdir.create(path, description)
    loop = Loop(
      job, path, stages=stages, progress_fn=progress_fn, should_stop=should_stop
    )
    summary = loop.run()
    report.write_report(path)
    return Outcome(status, summary)


class Loop:
  """One run: the state of the system, the counts, the clock, the files."""

  def __init__(
    self,
    job: job_lib.Job,
    path: pathlib.Path,
    *,
    stages: timing.Stages | None = None,
    progress_fn: ProgressFn = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    compiled: job_lib.Compiled | None = None,
  ):
    """Opens the files of a run in `path`, a folder made for it.

    Args:
      job: what to run.
      path: the workdir.
      stages: the clock; of a start that began earlier, for instance.
      progress_fn: called after every frame.
      should_stop: asked before every frame.
      compiled: the job's system, where it was compiled before.
    """
    self.job, self.path = job, path
    self.progress_fn, self.should_stop = progress_fn, should_stop
    self.stages = stages or timing.Stages()
    self.system = compiled
    num_classes = len(job.groups.names)
    self.tally = tally_lib.Tally(np.zeros((num_classes, num_classes), np.int64))
    self.metrics = writers.MetricsWriter(path / workdir.METRICS)
    self.sinks = writers.open_sinks(
      path,
      job.stream.spec.fps,
      job.groups.names,
      video=job.config.overlay,
      masks=job.config.save_masks,
    )
    self.reference, self.reference_t = None, 0

  def run(self) -> dict[str, Any]:
    """Goes through the stream; whatever happens, writes the summary."""
    try:
      with contextlib.ExitStack() as files:
        for file in (self.metrics, *self.sinks):
          files.callback(self._close, file)
        self._compile()
        is_over = self._go_through()
      # Only now is every file whole.
      self.tally.finished = is_over
    finally:
      summary = self.summary()
      workdir.write_json(self.path / workdir.SUMMARY, summary)
    return summary

  def _close(self, file):
    with self.stages("write"):
      file.close()

  def _compile(self):
    with self.stages("compile"):
      spec, seed = self.job.stream.spec, self.job.config.seed
      if self.system is None:
        self.system = job_lib.compile_system(
          self.job.system, spec.height, spec.width, seed
        )
      self.state = jax.block_until_ready(self.system.init())
      self.tally.next_key = int(self.system.next_key(self.state))

  def _go_through(self):
    """Takes every frame; returns whether the stream is over."""
    samples = prefetch.Prefetcher(self.job.stream.read())
    iterator = iter(samples)
    try:
      while not self._is_over():
        if self.should_stop():
          return False
        with self.stages("read"):
          sample = next(iterator, None)
        if sample is None:
          break
        self._take(sample)
      if not self.tally.num_frames:
        raise RuntimeError("no frame of the stream could be read")
      return True
    finally:
      samples.close()

  def _is_over(self):
    limit = self.job.config.num_frames
    seen = self.tally.num_frames + self.tally.num_skipped
    return limit is not None and seen >= limit

  def _take(self, sample: Sample):
    """One frame, from the stream's sample to the last file."""
    if sample.frame is None:
      self.tally.num_skipped += 1
      self._report_progress(f"frame {sample.t} skipped: {sample.problem}")
      return
    check_frame("the stream's frame", sample.frame)
    line, problem = {"t": sample.t, "is_key": False}, ""
    labels = None
    if self.tally.num_frames == self.tally.next_key:
      labels, problem = self._ask_teacher(sample, line)
    info = None
    if labels is not None:
      classes, info = self._learn(sample, labels, line)
    else:
      classes = self._predict(sample, line)
      if problem:  # the key frame passed without an answer
        self.tally.next_key = int(self.system.next_key(self.state))
    if not self.tally.num_frames:
      self.tally.first_frame_seconds = self.stages.elapsed()
    line["stride"] = self.tally.stride
    truth = self._evaluate(sample, classes, labels, line)
    self.tally.num_frames += 1
    with self.stages("write"):
      self.metrics.write(line)
      if self.sinks:
        self._write(sample, truth, classes, info)
    self._report_progress(problem)

  def _ask_teacher(self, sample, line, stage="teacher"):
    """Labels, or None and why after the last try."""
    for _ in range(TEACHER_TRIES):
      try:
        with self.stages(stage):
          labels = teachers.label(self.job.teacher, sample, self.job.groups)
        line[f"ms_{stage}"] = self.stages.milliseconds(stage)
        return labels, ""
      except RequestError:
        raise
      except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    self.tally.num_teacher_failures += 1
    return None, f"the teacher failed on frame {sample.t}: {problem}"

  def _learn(self, sample, labels: Labels, line):
    with self.stages("learn"):
      self.state, classes, info = jax.block_until_ready(
        self.system.learn(self.state, sample.frame, labels)
      )
    info: StepInfo = jax.tree.map(lambda x: np.asarray(x).item(), info)
    tally = self.tally
    tally.next_key = int(self.system.next_key(self.state))
    tally.stride = info.stride
    tally.num_keys += 1
    tally.num_updates += info.num_updates
    tally.num_rolled_back += info.num_rolled_back
    line.update(
      is_key=True,
      num_updates=info.num_updates,
      num_rolled_back=info.num_rolled_back,
      miou_before=info.miou_before,
      miou_after=info.miou_after,
      loss=tally_lib.finite(info.loss),
      grad_norm=tally_lib.finite(info.grad_norm),
      ms_learn=self.stages.milliseconds("learn"),
    )
    self.reference, self.reference_t = labels.classes, sample.t
    return np.asarray(classes), info

  def _predict(self, sample, line):
    with self.stages("predict"):
      self.state, classes = self.system.predict(self.state, sample.frame)
      classes = np.asarray(classes)  # waits
    line.update(num_updates=0, ms_predict=self.stages.milliseconds("predict"))
    return classes

  def _evaluate(self, sample, classes, labels, line):
    """Compares with the truth, else now and then with the teacher."""
    groups, every = self.job.truth_groups, self.job.config.eval_every
    if every is None:
      every = 1 if groups else EVAL_EVERY_BY_TEACHER
    is_due = every > 0 and self.tally.num_frames % every == 0
    truth = None
    if groups is not None and (is_due or self.sinks):
      with self.stages("evaluate"):
        truth = np.take(groups.lookup, sample.truth)
    if not is_due:
      return truth
    expected = truth
    if expected is None and labels is None:
      labels, problem = self._ask_teacher(sample, line, stage="eval_teacher")
      if problem:
        self._report_progress(problem)
    if expected is None and labels is not None:
      expected = labels.classes
    if expected is None:
      return truth
    with self.stages("evaluate"):
      confusion = metrics.confusion_matrix(
        expected, classes, len(self.job.groups.names)
      )
      line["eval_miou"] = metrics.run_miou(confusion)
      self.tally.confusion += confusion
      self.tally.eval_frames += 1
    return truth

  def _write(self, sample, truth, classes, info):
    if truth is not None:
      reference, title = truth, "truth"
    else:
      age = sample.t - self.reference_t
      reference = self.reference
      title = "teacher" if age == 0 else f"teacher, {age} frames ago"
    caption = overlay.Caption(
      t=sample.t,
      is_key=info is not None,
      num_updates=info.num_updates if info else 0,
      stride=self.tally.stride,
      miou=self.tally.miou(),
      reference_title=title,
      seconds=sample.t / self.job.stream.spec.fps,
    )
    record = writers.FrameRecord(
      sample.t, sample.frame, reference, classes, caption
    )
    for sink in self.sinks:
      sink.put(record)

  def _report_progress(self, problem):
    limits = (self.job.stream.spec.num_frames, self.job.config.num_frames)
    known = [limit for limit in limits if limit is not None]
    total = min(known) if known else None
    self.progress_fn(
      tally_lib.progress(self.tally, self.stages, total, problem)
    )

  def summary(self) -> dict[str, Any]:
    """The content of summary.json."""
    return tally_lib.summarize(
      self.tally,
      self.stages,
      class_names=self.job.groups.names,
      has_truth=self.job.truth_groups is not None,
      is_teacher_free=self.job.teacher.is_free,
      num_interrupted=workdir.num_interrupted(self.path),
    )
