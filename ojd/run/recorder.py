"""Records a teacher's labels of a stream; resumes where it stopped."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ojd.errors import UserError
from ojd.streams import base as streams
from ojd.streams import prefetch
from ojd.teachers import base as teachers
from ojd.teachers import labelers, recorded
from ojd.types import Sample, check_frame


class Progress(NamedTuple):
  """How far a recording is."""

  start: int  # the first frame of this call
  t: int  # the last frame seen
  total: int | None  # frames to see; None if the length is unknown
  num_records: int  # in the whole recording
  num_bytes: int
  num_failures: int  # frames that the teacher failed on, in this call
  problem: str = ""  # of this frame


def record(
  stream: streams.Stream,
  teacher: teachers.Teacher,
  path: str,
  *,
  teacher_name: str,
  every: int = 1,
  num_frames: int | None = None,
  progress_fn: Callable[[Progress], None] = lambda progress: None,
  should_stop: Callable[[], bool] = lambda: False,
) -> Progress:
  """Asks the teacher to label every n-th frame and records its answers.

  Args:
    stream: not live.
    teacher: labels its frames.
    path: folder of the recording; an unfinished one is continued.
    teacher_name: the value of --teacher.
    every: n.
    num_frames: where to stop; None at the end of the stream.
    progress_fn: called after every n-th frame.
    should_stop: called before every frame; True ends the recording.
  """
  spec = stream.spec
  if spec.is_live:
    raise UserError("--stream: a live stream cannot be recorded; give a file")
  about = recorded.Description(
    kind="",
    teacher=teacher_name,
    class_names=tuple(teacher.class_names),
    stream=spec.identity,
    height=spec.height,
    width=spec.width,
    num_frames=spec.num_frames,
    every=every,
  )
  limits = [n for n in (spec.num_frames, num_frames) if n is not None]
  recorder = _Recorder(path, about, teacher, min(limits, default=None))
  try:
    recorder.go_through(stream, progress_fn, should_stop)
  finally:
    recorder.close()
  return recorder.progress()


class _Recorder:
  """Extends a recording; the first answer determines its kind."""

  def __init__(self, path, about, teacher, total):
    self._path, self._about, self._teacher = path, about, teacher
    self._total, self._writer = total, None
    self._num_failures = 0
    if recorded.is_recording(path):
      self._open(recorded.Recording(path).description.kind)
    self._start = self._writer.last + 1 if self._writer else 0
    self._t = self._start - 1

  def _open(self, kind):
    about = msgspec.structs.replace(self._about, kind=kind)
    self._writer = recorded.Writer(self._path, about)

  def close(self):
    if self._writer is not None:
      self._writer.close()

  def progress(self, problem=""):
    writer = self._writer
    return Progress(
      start=self._start,
      t=self._t,
      total=self._total,
      num_records=writer.num_records if writer else 0,
      num_bytes=writer.num_bytes if writer else 0,
      num_failures=self._num_failures,
      problem=problem,
    )

  def go_through(self, stream, progress_fn, should_stop):
    """Records the frames that are not recorded yet."""
    if self._total is not None and self._start >= self._total:
      return
    samples = prefetch.Prefetcher(stream.read(self._start))
    try:
      for sample in samples:
        is_over = self._total is not None and sample.t >= self._total
        if is_over or should_stop():
          return
        self._t = sample.t
        if sample.t % self._about.every == 0:
          progress_fn(self.progress(self._take(sample)))
    finally:
      samples.close()

  def _take(self, sample: Sample):
    """Records one frame; returns the problem, or ""."""
    if sample.frame is None:
      return f"frame {sample.t} skipped: {sample.problem}"
    check_frame("the stream's frame", sample.frame)
    answer, problem = labelers.retry(lambda: self._ask(sample))
    if problem:
      self._num_failures += 1
      return f"the teacher failed on frame {sample.t}: {problem}"
    if self._writer is None:
      self._open(recorded.kind_of(answer))
    self._writer.write(sample.t, answer)
    return ""

  def _ask(self, sample):
    """Asks the teacher and checks its answer."""
    answer = self._teacher(sample)
    teachers.check_answer(self._teacher, answer, sample.frame)
    return answer
