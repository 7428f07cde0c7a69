"""The folder of a fleet.

fleet.json          its streams by name, and the flags that they share
streams/NAME/       the workdir of each stream, as of a run alone
starts/NAME.safetensors   the saved student that a stream began with
starts/NAME.json    its name, and the accuracy of the others
students/           the students that streams have saved, unless elsewhere
summary.json        the fleet in numbers
report/index.html   all streams on a page
"""

import dataclasses
import pathlib
from typing import Any, Literal

import msgspec

from ojd.errors import UserError
from ojd.fleet.listing import Entry
from ojd.run import workdir
from ojd.run.config import RunConfig
from ojd.streams import base

FLEET, SUMMARY, REPORT = "fleet.json", "summary.json", "report"
STREAMS, STARTS, STUDENTS = "streams", "starts", "students"
# What each stream has of its own.
_NOT_SHARED = ("stream", "workdir", "init", "eval_every")


class _Fleet(msgspec.Struct):
  """The content of fleet.json."""

  flags: dict[str, Any]  # those that the streams share
  streams: dict[str, str]  # addresses without passwords, by name
  command: str = ""
  format: Literal[1] = 1


def known_names(path: pathlib.Path, config: RunConfig) -> dict[str, str]:
  """Names by address, as the folder has them; refuses another fleet's folder.

  Args:
    path: of the folder, which need not be there.
    config: the flags that all streams share.
  """
  if path.exists() and not path.is_dir():
    raise UserError(f"--workdir={path} is a file")
  if not (path / FLEET).exists():
    if path.exists() and any(map(workdir.is_content, path.iterdir())):
      raise UserError(
        f"--workdir={path} holds files that are not of a fleet; name a new "
        "folder"
      )
    return {}
  found = _read(path)
  now = _shared(config)
  differing = [
    f"--{name} ({found.flags.get(name)}, now {value})"
    for name, value in now.items()
    if found.flags.get(name, value) != value
  ]
  if differing:
    raise UserError(
      f"--workdir={path} holds a fleet with other {'; '.join(differing)}; "
      "name a new folder"
    )
  return {uri: name for name, uri in found.streams.items()}


def _read(path) -> _Fleet:
  try:
    return msgspec.json.decode((path / FLEET).read_bytes(), type=_Fleet)
  except (OSError, RecursionError, msgspec.MsgspecError):
    raise UserError(
      f"--workdir={path}: its {FLEET} cannot be read; name a new folder"
    ) from None


def _shared(config):
  flags = dataclasses.asdict(config)
  return {k: v for k, v in flags.items() if k not in _NOT_SHARED}


def create(
  path: pathlib.Path, config: RunConfig, entries: list[Entry], command: str
) -> None:
  """Writes fleet.json; streams that were there before stay known."""
  streams = {}
  if (path / FLEET).exists():
    streams = _read(path).streams
  streams |= {entry.name: base.without_password(entry.uri) for entry in entries}
  content = msgspec.to_builtins(_Fleet(_shared(config), streams, command))
  try:
    (path / STREAMS).mkdir(exist_ok=True)
    workdir.write_json(path / FLEET, content)
  except OSError as error:
    raise UserError(
      f"--workdir={path} cannot be written: {error.strerror}"
    ) from None


def start_of(path: pathlib.Path, name: str) -> pathlib.Path:
  """The saved student that a stream began with, if there is the file."""
  return path / STARTS / f"{name}.safetensors"


def started_from(path: pathlib.Path, name: str) -> str:
  """The stream that saved that student; empty if it began with its own."""
  about = workdir.read_json(start_of(path, name).with_suffix(".json"))
  return str((about or {}).get("from", ""))
