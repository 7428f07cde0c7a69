"""Exports the student of a recorded run as it was at any of its frames."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ojd.errors import UserError
from ojd.models import export as export_lib
from ojd.models import pretrained
from ojd.run import build, recorded_run
from ojd.run.recorded_run import RecordedRun
from ojd.tasks.segmentation import classify

PROGRAM_SUFFIX = ".jax"


class Exported(NamedTuple):
  """The files of an exported student."""

  params: pathlib.Path  # safetensors, for --init
  program: pathlib.Path  # written by `export_lib.save`
  num_params: int
  size: str  # of the program's frames
  jax: str  # the version that wrote the program
  months: int  # for how long later versions of jax can read it


def export(
  run: RecordedRun,
  t: int,
  path: pathlib.Path,
  *,
  note_fn: Callable[[str], None] = lambda note: None,
) -> Exported:
  """Writes the student that answered frame t.

  Args:
    run: from `recorded_run.read`.
    t: a frame of the run.
    path: of the parameters; the program is written beside it.
    note_fn: called with the reason if a checkpoint cannot be used.
  """
  if not run.first <= t < run.end:
    raise recorded_run.range_error("at_frame", t, run)
  program = path.with_suffix(PROGRAM_SUFFIX)
  if program == path:
    raise UserError(
      f"--export={path}: {PROGRAM_SUFFIX} is the program's suffix; give another"
    )
  if recorded_run.open_job(run).system.serving is None:
    raise UserError(f"--export: --system={run.config.system} has no student")
  _check_writable(path)
  job, state = recorded_run.state_before(run, t + 1, note_fn)
  params = jax.device_get(job.system.serving.params(state))
  spec = job.stream.spec
  config = dataclasses.replace(run.config, init="random")
  student = build.make_student(config, run.groups)
  about = {
    "model": config.model,
    "frame": t,
    "stream": run.config.stream,
    "update": run.config.update,
    "program": f"{program.name}: jax {jax.__version__}, and for "
    f"{export_lib.MONTHS} months any later version",
  }
  named = pretrained.flatten(params)
  try:
    pretrained.save(
      path, pretrained.Pretrained(named, run.groups.names, about), np.float32
    )
    answer = lambda params, frame: classify(student.apply(params, frame))
    export_lib.save(program, answer, params, spec.height, spec.width)
  except OSError as error:
    raise UserError(f"--export={path}: {error.strerror}") from None
  return Exported(
    params=path,
    program=program,
    num_params=sum(x.size for x in named.values()),
    size=f"{spec.height}x{spec.width}",
    jax=jax.__version__,
    months=export_lib.MONTHS,
  )


def _check_writable(path):
  """Raises a UserError before the frames are replayed."""
  folder = path.parent
  if not folder.is_dir():
    raise UserError(f"--export={path}: there is no folder {folder}")
  if path.is_dir() or not os.access(folder, os.W_OK):
    raise UserError(f"--export={path} cannot be written")
