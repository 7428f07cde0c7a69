"""A stream of a fleet: from a line of the list to a job."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ojd.errors import UserError
from ojd.fleet import folder
from ojd.fleet.listing import Entry
from ojd.fleet.teachers import Teachers
from ojd.run import build, workdir
from ojd.run import config as config_lib
from ojd.run.build import Job
from ojd.run.config import RunConfig
from ojd.run.stats import Progress
from ojd.streams import base
from ojd.types import Sample

NEW, RUNNING, DONE, STOPPED, DEAD = "new", "running", "done", "stopped", "dead"


@dataclasses.dataclass
class StreamHandle:
  """The progress of one stream."""

  name: str
  config: RunConfig  # of its run
  state: str = NEW
  job: Job | None = None  # while it is to run or runs
  progress: Progress | None = None
  summary: dict[str, Any] | None = None
  problem: str = ""  # of a dead one
  started_from: str = ""  # the saved student that it began with


def check(config: RunConfig) -> None:
  """Raises a UserError for flags that streams of a fleet cannot have."""
  if config.link:
    raise UserError("--link: a fleet has no simulated network")
  if config.teacher_process:
    raise UserError(
      "--teacher_process: the teacher of a fleet is shared; with --ray it has "
      "processes of its own"
    )
  if build.method_of(config).prepare is not None:
    raise UserError(
      f"--system={config.system} learns from a whole stream beforehand; run "
      "its streams one by one"
    )
  # All that does not hang on a stream, before any is opened.
  config_lib.check(config)


def make(path: pathlib.Path, config: RunConfig, entry: Entry) -> StreamHandle:
  """A stream of the fleet in folder `path`; nothing is opened yet."""
  own = dataclasses.replace(
    config,
    stream=entry.uri,
    workdir=str(path / folder.STREAMS / entry.name),
  )
  start = folder.start_of(path, entry.name)
  if not start.is_file():
    return StreamHandle(entry.name, own)
  own = dataclasses.replace(own, init=str(start))
  source = folder.started_from(path, entry.name)
  return StreamHandle(entry.name, own, started_from=source)


def open_job(
  handle: StreamHandle,
  teachers: Teachers,
  *,
  is_paced: bool,
  is_rate_limited: bool,
) -> None:
  """Opens the stream and builds its job; a finished or a dead one has none.

  Args:
    handle: is changed.
    teachers: of the fleet.
    is_paced: whether the stream is played at its own rate.
    is_rate_limited: whether calls of the teacher are limited: then a stream is
      evaluated with it only on request.
  """
  try:
    stream = build.open_stream(handle.config)
    if is_paced and not stream.spec.is_live:
      stream = Paced(stream)
    teacher = teachers.open(handle.config, stream.spec)
    job = build.make_job_of(handle.config, stream, teacher)
    is_unset = job.truth_groups is None and job.config.eval_every is None
    if is_rate_limited and is_unset:
      config = dataclasses.replace(job.config, eval_every=0)
      job = job._replace(config=config)
    summary = _finished(job)
  except Exception as error:
    return fail(handle, error)
  if summary is not None:
    handle.state, handle.summary = DONE, summary
  else:
    handle.job = job


def fail(handle: StreamHandle, error: Exception) -> None:
  """Notes why a stream cannot go on."""
  words = " ".join(str(error).split())
  if not isinstance(error, UserError):
    words = f"{type(error).__name__}: {words}"
  handle.state, handle.problem, handle.job = DEAD, words, None


def _finished(job):
  """The summary of a run that is over; None of one that is not."""
  path = workdir.expand(job.config.workdir)
  description = workdir.describe_run(
    job.config, job.stream.spec.identity, job.groups, ""
  )
  if workdir.inspect(path, description) is not workdir.Status.FINISHED:
    return None
  return workdir.read_summary(path)


def has_begun(handle: StreamHandle) -> bool:
  """Whether its workdir holds a run already."""
  return (workdir.expand(handle.config.workdir) / workdir.CONFIG).exists()


class Paced(NamedTuple):
  """A recorded stream played at its own rate.

  No frame is dropped: a slow student falls behind.
  """

  stream: base.Stream
  clock: Callable[[], float] = time.monotonic
  sleep: Callable[[float], None] = time.sleep

  @property
  def spec(self) -> base.StreamSpec:
    return self.stream.spec

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples; the first at once."""
    begun = self.clock()
    for sample in self.stream.read(start):
      due = begun + (sample.t - start) / self.spec.fps
      self.sleep(max(due - self.clock(), 0.0))
      yield sample
