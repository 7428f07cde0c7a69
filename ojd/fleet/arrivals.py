"""Streams that begin: which student of the site's zoo each of them takes."""

import dataclasses
import pathlib
from collections.abc import Callable

from ojd.fleet import folder, member, zoo
from ojd.fleet.member import Member
from ojd.fleet.teachers import Teachers
from ojd.run import config as config_lib
from ojd.run import workdir
from ojd.run.build import Job
from ojd.streams import base as streams


def welcome(
  members: list[Member],
  teachers: Teachers,
  path: pathlib.Path,
  zoo_folder: pathlib.Path,
  open_fn: Callable[[Member], None],
  note_fn: Callable[[str], None],
) -> None:
  """Gives every stream that has not begun the best student there is.

  A choice is written down: a stream that goes on keeps it, whatever comes into
  the zoo.

  Args:
    members: of the fleet; those with a job may change it.
    teachers: who label a first frame.
    path: the fleet's folder.
    zoo_folder: of the students.
    open_fn: makes the job of a member anew.
    note_fn: told who begins with what.
  """
  for one in members:
    if one.job is not None and _may_choose(one, zoo_folder):
      try:
        choice, problems = _choose(one.job, teachers, zoo_folder)
      except Exception as error:
        member.bury(one, error)
        continue
      # What a live source has shown is gone: it is opened anew.
      streams.close(one.job.stream)
      for problem in problems:
        note_fn(problem)
      if choice is None or choice.name == zoo.OWN:
        if one.job.stream.spec.is_live:
          open_fn(one)
        continue
      init = folder.start_of(path, one.name)
      zoo.lend(zoo_folder, choice.name, init)
      about = {"from": choice.name, "mious": choice.mious}
      workdir.write_json(init.with_suffix(".json"), about)
      note_fn(
        f"{one.name} begins with the student of {choice.name}: mIoU "
        f"{choice.mious[choice.name]:.3f} on its first frame, its own "
        f"{choice.mious[zoo.OWN]:.3f}"
      )
      one.config = dataclasses.replace(one.config, init=str(init))
      one.job, one.started_from = None, choice.name
      open_fn(one)


def _may_choose(one: Member, zoo_folder):
  """Not where trained changes belong to the student that they came with."""
  options = config_lib.bound_system(one.config).options
  is_plain = "refresh_every" not in options
  is_new = not one.started_from and not member.has_begun(one)
  return is_plain and is_new and bool(zoo.members(zoo_folder))


def _choose(job: Job, teachers, zoo_folder):
  """The choice, None where no frame could be labelled; and what went wrong."""
  labeler = teachers.labeler(job)
  try:
    samples = job.stream.read(0)
    sample = next((s for s in samples if s.frame is not None), None)
    if sample is None:
      return None, []
    labeler.ask(sample)
    answer = labeler.answer(wait=True)
  finally:
    labeler.close()
  if answer.labels is None:
    return None, [f"--stream={job.config.stream}: {answer.problem}"]
  return zoo.choose(zoo_folder, job, sample, answer.labels)
