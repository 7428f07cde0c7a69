"""From a run's flags to a device at work: stream, student, connection."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from ojd.edge import player
from ojd.edge import student as student_lib
from ojd.edge.access import Dial, Timing
from ojd.edge.client import Client
from ojd.edge.device import Device
from ojd.edge.player import Pace, Player
from ojd.errors import UserError
from ojd.labels import ClassGroups
from ojd.models import export, pretrained
from ojd.network.conditions import Upload
from ojd.network.messages import JPEG, Terms
from ojd.network.uplink import Uplink
from ojd.network.weights import Weights, layout_of
from ojd.run import build, workdir
from ojd.run.config import RunConfig
from ojd.streams import base as streams
from ojd.systems.jit import serve_fn
from ojd.tasks import segmentation


class Settings(NamedTuple):
  """What a device has beside the flags of a run."""

  dial: Dial
  codec: str = JPEG
  kbps: float = 200.0  # of clips
  program: str = ""  # a file; empty: this package's student
  pace: Pace = Pace()
  patience: float = 30.0  # seconds until an answer is not waited for
  timing: Timing = Timing()


def make_player(
  config: RunConfig,
  settings: Settings,
  *,
  note_fn: Callable[[str], None] = lambda line: None,
  **options: Any,
) -> Player:
  """Opens the stream of a checked config and makes its student.

  Args:
    config: of the stream and the student.
    settings: of the device.
    note_fn: told in a line what the network does, by any thread.
    **options: of the `Player`.
  """
  stream = build.open_stream(config)
  spec = stream.spec
  groups = student_lib.groups_of(_classes(config, spec))
  student = build.make_student(config, groups)
  first = student_lib.first_weights(student, config.seed)
  if settings.program:
    program = export.load(settings.program)
    answer, stage = player.program_stage(program, first)
  else:
    serve = serve_fn(student, segmentation(student.num_classes))
    answer, stage = player.student_stage(serve, first)
  terms = Terms(
    *(spec.height, spec.width, spec.fps, settings.codec),
    student_lib.classes_text(groups),
  )
  device = Device(Weights(first, layout_of(first)), terms, stage)
  upload = Upload(codec=settings.codec, kbps=settings.kbps)
  client = Client(
    device,
    settings.dial,
    Uplink(upload, spec.height, spec.width),
    timing=settings.timing,
    patience=settings.patience,
    note_fn=note_fn,
  )
  path = _open_workdir(config, settings, groups, spec)
  return Player(
    *(stream, groups, answer, stage, client, path),
    num_frames=config.num_frames,
    pace=settings.pace,
    **options,
  )


def _classes(config: RunConfig, spec: streams.StreamSpec) -> str:
  """What to tell apart: as asked, as of the stream, as the first weights do."""
  text = config.classes.strip() or spec.default_classes
  if text:
    return text
  names = spec.class_names
  if config.init != "random":
    given = pretrained.load(build.init_path(config))
    names = given.class_names or names
  if len(names) < 2:
    raise UserError("--classes is missing: what does the server tell apart?")
  return ";".join(names[1:])


def check_workdir(config: RunConfig) -> pathlib.Path:
  """The folder of a run, or a UserError where one is there already."""
  path = workdir.expand(config.workdir)
  if any((path / n).exists() for n in (workdir.CONFIG, workdir.METRICS)):
    raise UserError(
      f"--workdir={config.workdir} holds a run already; name another folder"
    )
  return path


def _open_workdir(config, settings, groups: ClassGroups, spec) -> pathlib.Path:
  """A folder that holds no run yet, with this one's config.json."""
  path = check_workdir(config)
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f"--workdir={config.workdir} cannot be written: {error.strerror}"
    ) from None
  given = dataclasses.asdict(config)
  given["stream"] = streams.without_password(config.stream)
  about = {
    "flags": given,
    "server": settings.dial.url,
    "codec": settings.codec,
    "program": settings.program,
    "stream": spec.identity,
    "class_names": list(groups.names),
    "versions": workdir.versions(),
  }
  workdir.create(path, about)
  return path
