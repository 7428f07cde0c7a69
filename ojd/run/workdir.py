"""The workdir of a run: its files, its status, and the claim to write there.

config.json     flags, versions, devices, the stream's identity
metrics.jsonl   one line per frame
summary.json    the run in numbers
parent.jsonl    of a fork: metrics.jsonl of its parent
masks/ masks.mkv   the student's class maps (--save_masks)
boxes.jsonl boxes.json boxes_categories.json areas.jsonl     from the class maps
tensorboard/ wandb/     curves
overlay.mp4 report/index.html     for a person to look at
prepared/       the student that --system=offline_oracle trains before the run
trajectory/     the teacher's labels and the updates made from them
checkpoints/    an interrupted run resumes from these
overlay_parts/ masks_parts/     the videos of an unfinished run, one part for
                each stretch between two checkpoints
interrupted/    results of runs that could not resume, in 1/, 2/, ...
"""

import contextlib
import dataclasses
import enum
import fcntl
import importlib.metadata
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ojd.errors import UserError
from ojd.formats import class_maps
from ojd.formats.replacing import replacing
from ojd.formats.run_files import (
  CHECKPOINTS,
  CONFIG,
  METRICS,
  OVERLAY,
  REPORT,
  SUMMARY,
  TRAJECTORY,
  read_json,
)
from ojd.streams import base

if TYPE_CHECKING:
  # Programs that only read or write these files do not import jax.
  from ojd.labels import ClassGroups
  from ojd.run.config import RunConfig

MASKS, MASK_VIDEO = class_maps.FOLDER, class_maps.VIDEO
BOXES, BOX_LIST = "boxes.jsonl", "boxes.json"
BOX_CATEGORIES, AREAS = "boxes_categories.json", "areas.jsonl"
PREPARED = "prepared"
TENSORBOARD, WANDB = "tensorboard", "wandb"
OVERLAY_PARTS, MASK_PARTS = "overlay_parts", "masks_parts"
_INTERRUPTED, _LOCK = "interrupted", ".lock"
_FORMAT = 4  # of the whole folder
# A summary without these keys is not one of this program.
_SUMMARY_KEYS = {"finished", "miou", "num_frames", "fps", "num_updates"}
_RESULTS = (
  *(METRICS, SUMMARY, OVERLAY, OVERLAY_PARTS, REPORT),
  *(MASKS, MASK_VIDEO, MASK_PARTS, BOXES, BOX_LIST, BOX_CATEGORIES, AREAS),
  *(CHECKPOINTS, TRAJECTORY, TENSORBOARD, WANDB),
)


class Status(enum.Enum):
  """What the workdir has before a run."""

  NEW = "new"
  UNFINISHED = "unfinished"
  FINISHED = "finished"


def describe_run(
  config: "RunConfig",
  stream_identity: dict[str, Any],
  groups: "ClassGroups",
  command: str,
) -> dict[str, Any]:
  """The content of config.json; a run adds "options" and "fork" to it."""
  import jax

  flags = dataclasses.asdict(config)
  flags["stream"] = base.without_password(config.stream)
  return {
    "format": _FORMAT,
    "flags": flags,
    # Other people may see the file, so it has no passwords.
    "command": base.without_password(command),
    "stream": stream_identity,
    "class_names": list(groups.names),
    "class_members": [list(members) for members in groups.members],
    "versions": versions(),
    "devices": [str(device) for device in jax.devices()],
  }


def log_identity(description: dict[str, Any]) -> dict[str, Any]:
  """Identifies the run of a trajectory, even if its folder has moved."""
  flags = {k: v for k, v in description["flags"].items() if k != "workdir"}
  names = ("stream", "class_names")
  fork = description.get("fork")
  origin = {"from_frame": fork["from_frame"]} if fork else {}
  return {"flags": flags, **{n: description[n] for n in names}, **origin}


def versions() -> dict[str, str | None]:
  """Versions of Python and of the packages that may affect the numbers."""
  packages = ("ojd", "jax", "jaxlib", "flax", "optax", "torch")
  packages += ("opencv-python-headless",)
  return {
    "python": sys.version.split()[0],
    **{name: _version(name) for name in packages},
  }


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def inspect(path: pathlib.Path, description: dict[str, Any]) -> Status:
  """The status of the workdir; a UserError if it has other content."""
  try:
    if path.exists() and not path.is_dir():
      raise UserError(f"--workdir={path} is a file")
    if not path.exists() or not any(map(is_content, path.iterdir())):
      return Status.NEW
  except OSError as error:
    raise UserError(f"--workdir={path}: {error.strerror}") from None
  if not (path / CONFIG).exists():
    raise UserError(
      f"--workdir={path} holds files that are not of a run; name a new folder"
    )
  differing = _differences(read_config(path), description)
  if differing:
    raise UserError(
      f"--workdir={path} holds a run with other {'; '.join(differing)}; "
      "name a new folder"
    )
  summary = read_summary(path)
  is_finished = summary is not None and summary["finished"]
  return Status.FINISHED if is_finished else Status.UNFINISHED


def is_content(path: pathlib.Path) -> bool:
  """False for the files of a run that died before it started."""
  return path.name != _LOCK and path.suffix != ".part"


@contextlib.contextmanager
def claim(path: pathlib.Path, flag: str = "workdir") -> Iterator[None]:
  """Makes the folder and keeps all other processes out of it.

  The claim ends with the process, even if the process is killed.

  Args:
    path: of the folder.
    flag: the flag that names it, for errors.
  """
  try:
    path.mkdir(parents=True, exist_ok=True)
    file = (path / _LOCK).open("a")
  except OSError as error:
    raise UserError(
      f"--{flag}={path} cannot be written: {error.strerror}"
    ) from None
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise UserError(f"--{flag}={path}: another process is using it") from None
    yield


def expand(text: str, flag: str = "workdir") -> pathlib.Path:
  """Converts the value of a flag to a path, with ~ expanded."""
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError:
    raise UserError(f"--{flag}={text}: there is no such home folder") from None


def read_config(path: pathlib.Path) -> dict[str, Any]:
  """Reads config.json; a UserError if it is not one of this program."""
  config = read_json(path / CONFIG)
  if config is None or not isinstance(config.get("flags"), dict):
    raise UserError(
      f"--workdir={path}: its {CONFIG} cannot be read; name a new folder"
    )
  there = config.get("format", 1)
  if there != _FORMAT:
    raise UserError(
      f"--workdir={path} has format {there}, and this version writes "
      f"{_FORMAT}; name a new folder"
    )
  return config


def _differences(old, new):
  """The flags, or the stream, in which two runs differ, as text."""
  words = []
  for name in sorted(old["flags"].keys() | new["flags"].keys()):
    before, now = (x["flags"].get(name) for x in (old, new))
    if before != now and name != "workdir":
      text = ["default" if x is None else x for x in (before, now)]
      words.append(f"--{name} ({text[0]}, now {text[1]})")
  if not words:
    words = _differing_defaults(old.get("options"), new.get("options"))
  if not words and old.get("stream") != new["stream"]:
    words.append("frames of the same --stream")
  return words or _differing_origins(old.get("fork"), new.get("fork"))


def _differing_defaults(old, new):
  """Options whose defaults have changed since the run started, as text."""
  old, new = old or {}, new or {}
  return [
    f"default of {kind} {name} ({there[name]}, now {new[kind].get(name)})"
    for kind, there in old.items()
    for name in there
    if kind in new and there[name] != new[kind].get(name)
  ]


def _differing_origins(old, new):
  """How the starting points of two runs with the same flags differ, as text."""
  if old is None or new is None:
    return [] if old is new else ["start: one is a fork, one is not"]
  names = ("from_frame", "parent")
  return [f"{n} ({old[n]}, now {new[n]})" for n in names if old[n] != new[n]]


def read_summary(path: pathlib.Path) -> dict[str, Any] | None:
  """Reads summary.json; None if there is no complete one."""
  summary = read_json(path / SUMMARY)
  is_whole = summary is not None and summary.keys() >= _SUMMARY_KEYS
  return summary if is_whole else None


def create(path: pathlib.Path, description: dict[str, Any]) -> None:
  """Writes config.json; from then on the folder belongs to this run."""
  try:
    write_json(path / CONFIG, description)
  except OSError as error:
    raise UserError(
      f"--workdir={path} cannot be written: {error.strerror}"
    ) from None


def set_aside(path: pathlib.Path) -> int:
  """Moves an unfinished run's results to interrupted/N; returns N."""
  attic = path / _INTERRUPTED
  number = num_interrupted(path) + 1
  target = attic / str(number)
  target.mkdir(parents=True)
  for name in _RESULTS:
    if (path / name).exists():
      os.replace(path / name, target / name)
  return number


def drop_parts(path: pathlib.Path) -> None:
  """Deletes the parts of videos that are finished."""
  for name in (OVERLAY_PARTS, MASK_PARTS):
    shutil.rmtree(path / name, ignore_errors=True)


def num_interrupted(path: pathlib.Path) -> int:
  """The number of runs in this folder that were set aside."""
  attic = path / _INTERRUPTED
  return len(list(attic.iterdir())) if attic.is_dir() else 0


def write_json(path: pathlib.Path, content: Any) -> None:
  """Replaces a JSON file atomically: a reader sees the old or the new one."""
  with replacing(path) as beside:
    beside.write_text(json.dumps(content, indent=2) + "\n")
