"""A sweep table: a TOML file, read and checked.

    binary = "online_distill"
    output = "runs/thresholds"
    repeats = 2                # seeds 0 and 1; without it no --seed is given
    cores = 1                  # of a run, as are memory_gb and gpus
    memory_gb = 2

    [flags]                    # of every run
    teacher = "ground_truth"

    [grid]                     # every combination of what is listed here
    a_thresh = [0.7, 0.9]

    [grid.scene.park]          # flags that go together, under a name
    stream = "synthetic:park"
    classes = "person"

    [grid.scene.street]
    stream = "synthetic:street"

With `binary = "compare"` there are `[comparison] streams, systems` in the
place of the grid, lists of what `--streams` and `--systems` take. `$NAME` in a
text is a variable of the environment, and `$$` a dollar.
"""

import os
import pathlib
import re
import tomllib
from typing import Any, NamedTuple

from ojd.errors import UserError

# The flag that names the folder which a run fills.
FOLDER_FLAGS = {
  "fleet": "workdir",
  "online_distill": "workdir",
  "pretrain": "workdir",
  "train_delta": "workdir",
  "train_teacher": "workdir",
  "record": "out",
}
COMPARE = "compare"
BUNDLED = pathlib.Path(__file__).parent / "tables"
_MAX_FILE = 1 << 20  # bytes
_KEYS = {
  *("binary", "output", "repeats", "cores", "memory_gb", "gpus"),
  *("flags", "grid", "comparison"),
}
_LISTS = ("streams", "systems")  # of a comparison
_MAX_REPEATS, _MAX_NEED = 10_000, 100_000
_VARIABLE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")

Flags = dict[str, Any]


class Need(NamedTuple):
  """What a run takes of a machine."""

  cores: int = 1
  memory_gb: float = 2.0
  gpus: int = 0


class Choice(NamedTuple):
  """A place on an axis of the grid."""

  name: str
  flags: Flags


class Table(NamedTuple):
  """A file of runs, as it says; nothing of it is multiplied out."""

  path: pathlib.Path
  binary: str
  output: str
  repeats: int | None  # None: no --seed is given
  need: Need
  flags: Flags
  axes: dict[str, list[Choice]]
  streams: list[str]  # of a comparison, as are
  systems: list[str]


def find(word: str) -> pathlib.Path:
  """The file that is meant: a path, or the name of a bundled table."""
  path = pathlib.Path(word).expanduser()
  beside = BUNDLED / f"{word}.toml"
  if path.is_file() or not re.fullmatch(r"\w+", word) or not beside.is_file():
    return path
  return beside


def bundled() -> list[str]:
  """The names of the tables that come with the package."""
  return sorted(path.stem for path in BUNDLED.glob("*.toml"))


def read(path: pathlib.Path) -> Table:
  """Reads a file; a UserError says what in it is wrong."""
  try:
    with path.open("rb") as file:
      text = file.read(_MAX_FILE + 1)
    if len(text) > _MAX_FILE:
      raise ValueError(f"it has more than {_MAX_FILE >> 20} MB")
    content = tomllib.loads(text.decode("utf-8"))
  except FileNotFoundError:
    raise UserError(
      f"{path}: there is no such table; bundled are {', '.join(bundled())}"
    ) from None
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}") from None
  except (ValueError, RecursionError) as error:
    words = " ".join(str(error).split())
    raise UserError(f"{path} is no table in TOML: {words}") from None
  try:
    return _table(path, content)
  except UserError as error:
    raise UserError(f"{path}: {error}") from None


def _table(path, content):
  _refuse_others(content, _KEYS, "key")
  binary = _typed(content, "binary", str)
  if binary not in {COMPARE, *FOLDER_FLAGS}:
    raise UserError(
      f"binary = {binary!r}: not one that is launched; known are "
      f"{', '.join([*FOLDER_FLAGS, COMPARE])}"
    )
  is_comparison = binary == COMPARE
  wanted, other = ("comparison", "grid")[:: 1 if is_comparison else -1]
  if other in content:
    raise UserError(f"[{other}] is not for {binary!r}: [{wanted}] is")
  comparison = _section(content, "comparison")
  _refuse_others(comparison, _LISTS, "key of [comparison]")
  streams, systems = (
    _texts(comparison, name) if is_comparison else [] for name in _LISTS
  )
  return Table(
    path=path,
    binary=binary,
    output=_expanded(_typed(content, "output", str)),
    repeats=_whole(content, "repeats", 1, _MAX_REPEATS, None),
    need=_need(content),
    flags=_flags(_section(content, "flags"), "flags"),
    axes={
      name: _axis(name, values)
      for name, values in _section(content, "grid").items()
    },
    streams=streams,
    systems=systems,
  )


def _need(content):
  default = Need()
  memory = content.get("memory_gb", default.memory_gb)
  is_number = isinstance(memory, int | float) and not isinstance(memory, bool)
  if not is_number or not 0 < memory <= _MAX_NEED:
    raise UserError(f"memory_gb = {memory!r}: a number above 0")
  return Need(
    _whole(content, "cores", 1, _MAX_NEED, default.cores),
    float(memory),
    _whole(content, "gpus", 0, _MAX_NEED, default.gpus),
  )


def _refuse_others(content, known, what):
  for name in content:
    if name not in known:
      raise UserError(
        f"{name!r} is no {what}; known are {', '.join(sorted(known))}"
      )


def _typed(content, name, kind):
  if name not in content:
    raise UserError(f"{name} is missing")
  value = content[name]
  if not isinstance(value, kind) or not value:
    raise UserError(f"{name} = {value!r}: a text that is not empty")
  return value


def _whole(content, name, least, most, default):
  value = content.get(name, default)
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  if value is not default and not (is_whole and least <= value <= most):
    raise UserError(
      f"{name} = {value!r}: a whole number from {least} to {most}"
    )
  return value


def _section(content, name):
  section = content.get(name, {})
  if not isinstance(section, dict):
    raise UserError(f"{name} = {section!r}: a section, [{name}], is meant")
  return section


def _texts(section, name):
  texts = section.get(name)
  is_list = isinstance(texts, list) and texts
  if not is_list or not all(isinstance(text, str) and text for text in texts):
    raise UserError(f"[comparison] {name}: a list of texts, not {texts!r}")
  return [_expanded(text) for text in texts]


def _axis(name, values):
  """The choices on an axis, told as values of one flag or as named groups."""
  if not isinstance(values, list | dict) or not values:
    raise UserError(
      f"[grid] {name} = {values!r}: a list of values, or sections "
      f"[grid.{name}.NAME] of flags"
    )
  if isinstance(values, list):
    choices = (_flags({name: value}, "grid") for value in values)
    return [Choice(f"{name}={flags[name]}", flags) for flags in choices]
  return [
    Choice(choice, _flags(_section(values, choice), f"grid.{name}.{choice}"))
    for choice in values
  ]


def _flags(section, where):
  """Flags with plain values, their variables expanded."""
  flags = {}
  for name, value in section.items():
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
      raise UserError(f"[{where}] {name!r} is no name of a flag")
    if not isinstance(value, str | int | float):
      raise UserError(
        f"[{where}] {name} = {value!r}: a text, a number, true or false"
      )
    flags[name] = _expanded(value) if isinstance(value, str) else value
  return flags


def _expanded(text):
  """A text with the environment's variables in it."""

  def of(match):
    name = match[1] or match[2]
    if name is None:
      return "$"
    if not os.environ.get(name):
      raise UserError(f"${name} is not set; export {name}=... first")
    return os.environ[name]

  return _VARIABLE.sub(of, text)
