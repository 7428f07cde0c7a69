"""Students that a site has taught, for cameras that are new or come back.

Each stream leaves the student that it ended with. One that begins has its first
readable frame labelled, tries all of them on it, and begins with the best, its
own `--init` among them (the model zoo of RECL, NSDI 2023, where a network
chooses; here the newcomer's own labels do).
"""

import os
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ojd import metrics
from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.models import pretrained
from ojd.models.student import Params
from ojd.run.build import Job
from ojd.tasks.segmentation import classify
from ojd.types import Labels, Sample

_SUFFIX = ".safetensors"
OWN = "--init"  # the name of the student that a stream comes with


class Choice(NamedTuple):
  """The student that a stream begins with."""

  name: str  # OWN, or of the zoo
  mious: dict[str, float]  # of all that were tried, on the stream's first frame


def members(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files of the zoo, by name."""
  if not folder.is_dir():
    return []
  return sorted(folder.glob(f"*{_SUFFIX}"))


def choose(
  folder: pathlib.Path, job: Job, sample: Sample, labels: Labels
) -> tuple[Choice, list[str]]:
  """Tries every student of the zoo on a labelled frame.

  Args:
    folder: of the zoo.
    job: of the stream, with its own student.
    sample: the frame.
    labels: of its teacher.

  Returns:
    The choice, and a line about each file that is of no use here.
  """
  student, groups = job.student, job.groups
  own = jax.jit(student.init)(jax.random.key(job.config.seed), sample.frame)

  @jax.jit
  def judge(params):
    classes = classify(student.apply(params, sample.frame))
    return metrics.frame_miou(
      jnp.asarray(labels.classes),
      classes,
      num_classes=student.num_classes,
      counts=jnp.asarray(labels.weights) > 0,
    )

  mious, problems = {OWN: float(judge(own))}, []
  for path in members(folder):
    try:
      given = pretrained.load(path)
      pretrained.start_from(student, given, groups)  # refuses other networks
      mious[path.stem] = float(judge(pretrained.fit(own, given, groups)))
    except UserError as error:
      words = str(error).removeprefix(f"--init={path}: ")
      problems.append(f"{path} is passed over: {words}")
  # Its own where another one is no better.
  best = max(mious, key=lambda name: (mious[name], name == OWN))
  return Choice(best, mious), problems


def lend(folder: pathlib.Path, name: str, target: pathlib.Path) -> None:
  """Copies a student of the zoo, whole or not at all."""
  target.parent.mkdir(parents=True, exist_ok=True)
  beside = target.with_name(target.name + ".part")
  shutil.copyfile(folder / f"{name}{_SUFFIX}", beside)
  os.replace(beside, target)


def leave(
  folder: pathlib.Path,
  name: str,
  params: Params,
  groups: ClassGroups,
  about: dict[str, Any],
  most: int,
) -> None:
  """Puts a stream's student into the zoo, in the place of its earlier one.

  Where there are more than `most`, those go that were left longest ago.
  """
  folder.mkdir(parents=True, exist_ok=True)
  flat = pretrained.flatten(jax.device_get(params))
  path = folder / f"{name}{_SUFFIX}"
  pretrained.save(path, pretrained.Pretrained(flat, groups.names, about))
  old = sorted(members(folder), key=lambda path: path.stat().st_mtime_ns)
  for path in old[: max(len(old) - most, 0)]:
    path.unlink(missing_ok=True)
