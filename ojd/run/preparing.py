"""Prepares a method that trains on the labeled stream before its run."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from ojd.run import build, stats
from ojd.run.build import Job
from ojd.streams import prefetch
from ojd.systems.offline_oracle import Preparation
from ojd.teachers import base as teachers
from ojd.types import Labels

STAGE = "pretrain"  # of the clock; not part of the run's own time
# The frames, their labels and the training depend on these flags.
_OF_LABELS = (
  *("stream", "start_frame", "every", "num_frames", "height", "width"),
  *("teacher", "classes", "init", "seed"),
)


def prepare(
  job: Job,
  stages: stats.Stages,
  note_fn: Callable[[str], None],
  should_stop: Callable[[], bool],
) -> Job | None:
  """Trains what a method needs before the run; returns the job with it.

  The workdir keeps the result, so that a job is prepared only once. The job of
  a method without preparation is returned unchanged. None: it was stopped.
  """
  method = build.method_of(job.config)
  if method.prepare is None:
    return job
  path = build.prepared_student(job.config)
  if not path.is_file():
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = preparation(job, path.parent, note_fn, should_stop)
    with stages(STAGE):
      if not method.prepare(wanted):
        return None
  student = build.first_student(job.config, job.groups)
  system = build.make_system(job.config, student, job.stream.spec)
  return job._replace(system=system, student=student)


def preparation(
  job: Job,
  folder: pathlib.Path,
  note_fn: Callable[[str], None] = lambda note: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> Preparation:
  """What a method may use before the run, such as the labeled stream.

  Args:
    job: with its teacher.
    folder: for the results.
    note_fn: called with lines about the progress.
    should_stop: called from time to time; True ends the preparation.
  """
  num_frames = build.num_frames_of(job.config, job.stream.spec)
  flags = dataclasses.asdict(job.config)
  spec = job.stream.spec
  return Preparation(
    student=job.student,
    class_names=job.groups.names,
    about={
      "flags": {name: flags[name] for name in _OF_LABELS}
      | {"teacher": teachers.without_device(flags["teacher"])},
      "stream_identity": spec.identity,
    },
    num_frames=num_frames,
    height=spec.height,
    width=spec.width,
    labelled=lambda every: _labeled(job, num_frames, every, note_fn),
    folder=folder,
    note_fn=note_fn,
    should_stop=should_stop,
  )


def _labeled(
  job, num_frames, every, note_fn
) -> Iterator[tuple[np.ndarray, Labels]]:
  """Yields every n-th readable frame with the labels of the job's teacher."""
  labeler = build.make_labeler(job)
  samples = prefetch.readable(job.stream.read(), num_frames)
  try:
    with contextlib.closing(samples):
      for sample in samples:
        if sample.t % every:
          continue
        labeler.ask(sample)
        answer = labeler.answer(wait=True)
        if answer.labels is None:
          note_fn(f"no labels of frame {sample.t}: {answer.problem}")
        else:
          yield sample.frame, answer.labels
  finally:
    if labeler is not job.teacher:  # the run still needs the worker
      labeler.close()
