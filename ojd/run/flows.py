"""The table of `--flow`: who says where pixels were in the frame before."""

import importlib
import pathlib

from ojd.errors import UserError
from ojd.models import optical_flow

DEFAULT = "dis:medium"
# Networks of torch live with the teachers and are imported when asked for.
_RAFT = "ojd.teachers.raft"


def known() -> list[str]:
  """What `--flow` takes."""
  return [*(f"dis:{name}" for name in optical_flow.DIS_PRESETS), "raft:FILE"]


def check(text: str) -> None:
  """Raises a UserError unless `make` knows the text."""
  name, _, argument = text.partition(":")
  if name == "raft" and argument:
    if not pathlib.Path(argument).expanduser().is_file():
      raise UserError(f"--flow={text}: no such file of weights")
  elif text not in known():
    raise UserError(f"--flow={text}: unknown; known are {', '.join(known())}")


def make(text: str) -> optical_flow.HostFlow:
  """The function behind a `--flow` value."""
  check(text)
  name, _, argument = text.partition(":")
  if name == "raft":
    path = pathlib.Path(argument).expanduser()
    return importlib.import_module(_RAFT).make_flow(path)
  return optical_flow.dis(argument)
