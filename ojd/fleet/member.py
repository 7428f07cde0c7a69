"""A stream of a fleet: from a line of the list to a job."""

import dataclasses
import pathlib
from typing import Any

from ojd.errors import UserError
from ojd.fleet import folder
from ojd.fleet.listing import Entry
from ojd.fleet.pacing import Paced
from ojd.fleet.teachers import Teachers
from ojd.run import build, workdir
from ojd.run import config as config_lib
from ojd.run.build import Job
from ojd.run.config import RunConfig
from ojd.run.stats import Progress

NEW, RUNNING, DONE, STOPPED, DEAD = "new", "running", "done", "stopped", "dead"


@dataclasses.dataclass
class Member:
  """One stream, as far as it has come."""

  name: str
  config: RunConfig  # of its run
  state: str = NEW
  job: Job | None = None  # while it is to run or runs
  progress: Progress | None = None
  summary: dict[str, Any] | None = None
  problem: str = ""  # of a dead one
  started_from: str = ""  # the student of the zoo that it began with


def check(config: RunConfig) -> None:
  """Raises a UserError for what streams that share a machine cannot do."""
  if config.link:
    raise UserError("--link: a fleet has no network to reckon with")
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


def make(path: pathlib.Path, config: RunConfig, entry: Entry) -> Member:
  """A stream of the fleet in folder `path`; nothing is opened yet."""
  own = dataclasses.replace(
    config,
    stream=entry.uri,
    workdir=str(path / folder.STREAMS / entry.name),
  )
  start = folder.start_of(path, entry.name)
  if not start.is_file():
    return Member(entry.name, own)
  own = dataclasses.replace(own, init=str(start))
  source = folder.started_from(path, entry.name)
  return Member(entry.name, own, started_from=source)


def open_job(
  member: Member, teachers: Teachers, *, is_paced: bool, is_rationed: bool
) -> None:
  """Opens the stream and builds its job; a finished or a dead one has none.

  Args:
    member: which is changed.
    teachers: of the fleet.
    is_paced: whether the stream is played at its own rate.
    is_rationed: whether calls of the teacher are scarce: then no stream is
      judged by it that does not ask for that.
  """
  try:
    stream = build.open_stream(member.config)
    if is_paced and not stream.spec.is_live:
      stream = Paced(stream)
    teacher = teachers.open(member.config, stream.spec)
    job = build.make_job_of(member.config, stream, teacher)
    is_unjudged = job.truth_groups is None and job.config.eval_every is None
    if is_rationed and is_unjudged:
      config = dataclasses.replace(job.config, eval_every=0)
      job = job._replace(config=config)
    summary = _finished(job)
  except Exception as error:
    return bury(member, error)
  if summary is not None:
    member.state, member.summary = DONE, summary
  else:
    member.job = job


def bury(member: Member, error: Exception) -> None:
  """Notes why a stream cannot go on."""
  words = " ".join(str(error).split())
  if not isinstance(error, UserError):
    words = f"{type(error).__name__}: {words}"
  member.state, member.problem, member.job = DEAD, words, None


def _finished(job):
  """The summary of a run that is over; None of one that is not."""
  path = workdir.expand(job.config.workdir)
  description = workdir.describe_run(
    job.config, job.stream.spec.identity, job.groups, ""
  )
  if workdir.inspect(path, description) is not workdir.Status.FINISHED:
    return None
  return workdir.read_summary(path)


def has_begun(member: Member) -> bool:
  """Whether its workdir holds a run already."""
  return (workdir.expand(member.config.workdir) / workdir.CONFIG).exists()
