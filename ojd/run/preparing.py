"""What a method asks for before its run: the stream's frames, labelled."""

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

STAGE = "pretrain"  # of the clock; no part of the run's own time
# What the frames, their labels and the training do not follow.
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
  """The job with what its method learns beforehand; None where it was stopped.

  What is learned is kept in the workdir: the same job is not prepared twice. A
  method that asks for nothing gets its job back.
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
  """All that may be known of a job's stream before it is played.

  Args:
    job: with its teacher.
    folder: what comes of it goes there.
    note_fn: called with the progress, in lines.
    should_stop: asked now and then.
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
    labelled=lambda every: _labelled(job, num_frames, every, note_fn),
    folder=folder,
    note_fn=note_fn,
    should_stop=should_stop,
  )


def _labelled(
  job, num_frames, every, note_fn
) -> Iterator[tuple[np.ndarray, Labels]]:
  """Every n-th frame that there is and its labels, by the job's teacher."""
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
    if labeler is not job.teacher:  # a worker is wanted again
      labeler.close()
