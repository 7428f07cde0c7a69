"""The store of trained students, from which new streams start warm.

Each stream saves its last student. A new stream has its first readable frame
labeled, tries all saved students and its own `--init` on it, and starts with
the best. (RECL, NSDI 2023, has such a model zoo, from which a network chooses;
here the labels of the new stream do.)
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ojd import metrics
from ojd.errors import UserError
from ojd.fleet import folder, handle
from ojd.fleet.handle import StreamHandle
from ojd.fleet.teachers import Teachers
from ojd.formats.replacing import replacing
from ojd.labels import ClassGroups
from ojd.models import pretrained
from ojd.models.student import Params
from ojd.run import config as config_lib
from ojd.run import workdir
from ojd.run.build import Job
from ojd.streams import base as streams
from ojd.tasks.segmentation import classify
from ojd.types import Labels, Sample

_SUFFIX = ".safetensors"
OWN = "--init"  # the name of the student that a stream comes with


class Choice(NamedTuple):
  """The student that a stream begins with."""

  name: str  # OWN, or of the store
  mious: dict[str, float]  # of all that were tried, on the stream's first frame


def saved_students(store: pathlib.Path) -> list[pathlib.Path]:
  """The files of the store, by name."""
  return sorted(store.glob(f"*{_SUFFIX}")) if store.is_dir() else []


def checkout(store: pathlib.Path, name: str, target: pathlib.Path) -> None:
  """Copies a student of the store, whole or not at all."""
  target.parent.mkdir(parents=True, exist_ok=True)
  with replacing(target) as beside:
    shutil.copyfile(store / f"{name}{_SUFFIX}", beside)


def save(
  store: pathlib.Path,
  name: str,
  params: Params,
  groups: ClassGroups,
  about: dict[str, Any],
  max_students: int,
) -> None:
  """Saves a stream's student, and replaces its earlier one.

  Where there are more than `max_students`, the oldest go.
  """
  store.mkdir(parents=True, exist_ok=True)
  flat = pretrained.flatten(jax.device_get(params))
  path = store / f"{name}{_SUFFIX}"
  pretrained.save(path, pretrained.Pretrained(flat, groups.names, about))
  found = sorted(saved_students(store), key=lambda p: p.stat().st_mtime_ns)
  for path in found[: max(len(found) - max_students, 0)]:
    path.unlink(missing_ok=True)


def choose(
  store: pathlib.Path, job: Job, sample: Sample, labels: Labels
) -> tuple[Choice, list[str]]:
  """Tries every student of the store on a labelled frame.

  Args:
    store: the folder of students.
    job: of the stream, with its own student.
    sample: the frame.
    labels: of its teacher.

  Returns:
    The choice, and a line about each file that cannot be used.
  """
  student, groups = job.student, job.groups
  own = jax.jit(student.init)(jax.random.key(job.config.seed), sample.frame)

  @jax.jit
  def evaluate(params):
    classes = classify(student.apply(params, sample.frame))
    return metrics.frame_miou(
      jnp.asarray(labels.classes),
      classes,
      num_classes=student.num_classes,
      counts=jnp.asarray(labels.weights) > 0,
    )

  mious, problems = {OWN: float(evaluate(own))}, []
  for path in saved_students(store):
    try:
      found = pretrained.load(path)
      pretrained.start_from(student, found, groups)  # refuses other networks
      mious[path.stem] = float(evaluate(pretrained.fit(own, found, groups)))
    except UserError as error:
      words = str(error).removeprefix(f"--init={path}: ")
      problems.append(f"{path} is passed over: {words}")
  # Its own where another one is no better.
  best = max(mious, key=lambda name: (mious[name], name == OWN))
  return Choice(best, mious), problems


def start_warm(
  handles: Sequence[StreamHandle],
  teachers: Teachers,
  path: pathlib.Path,
  store: pathlib.Path,
  open_fn: Callable[[StreamHandle], None],
  note_fn: Callable[[str], None],
) -> None:
  """Gives every new stream the best student of the store.

  The choice is saved: a stream that resumes keeps it, also if the store
  changes.

  Args:
    handles: of the streams; those with a job may change it.
    teachers: that label a first frame.
    path: the fleet's folder.
    store: the folder of students.
    open_fn: makes the job of a stream anew.
    note_fn: called with a line about each choice.
  """
  for one in handles:
    if one.job is None or not _may_choose(one, store):
      continue
    try:
      choice, problems = _choose(one.job, teachers, store)
    except Exception as error:
      handle.fail(one, error)
      continue
    # What a live source has shown is gone: it is opened anew.
    streams.close(one.job.stream)
    for problem in problems:
      note_fn(problem)
    if choice is None or choice.name == OWN:
      if one.job.stream.spec.is_live:
        open_fn(one)
      continue
    init = folder.start_of(path, one.name)
    checkout(store, choice.name, init)
    about = {"from": choice.name, "mious": choice.mious}
    workdir.write_json(init.with_suffix(".json"), about)
    note_fn(
      f"{one.name} begins with the student of {choice.name}: mIoU "
      f"{choice.mious[choice.name]:.3f} on its first frame, its own "
      f"{choice.mious[OWN]:.3f}"
    )
    one.config = dataclasses.replace(one.config, init=str(init))
    one.job, one.started_from = None, choice.name
    open_fn(one)


def _may_choose(one, store):
  """Not if trained changes belong to one student."""
  options = config_lib.bound_system(one.config).options
  is_plain = "refresh_every" not in options
  is_new = not one.started_from and not handle.has_begun(one)
  return is_plain and is_new and bool(saved_students(store))


def _choose(job, teachers, store):
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
  return choose(store, job, sample, answer.labels)
