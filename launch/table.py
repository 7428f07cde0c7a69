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
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

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
_VARIABLE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")

Flags = dict[str, Any]
Keys = tuple[str, ...]  # from the top of a file to a value

_Text = Annotated[str, Meta(min_length=1)]
_Texts = Annotated[list[_Text], Meta(min_length=1)]
_Repeats = Annotated[int, Meta(ge=1, le=10_000)]
_Number = str | int | float | bool
_FLAG = re.compile(r"[a-z][a-z0-9_]*")


class Need(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
  """What a run takes of a machine."""

  cores: Annotated[int, Meta(ge=1, le=100_000)] = 1
  memory_gb: Annotated[float, Meta(gt=0, le=100_000)] = 2.0
  gpus: Annotated[int, Meta(ge=0, le=100_000)] = 0


class _Comparison(msgspec.Struct, forbid_unknown_fields=True):
  """Its streams and systems, as `--streams` and `--systems` take them."""

  streams: _Texts
  systems: _Texts


class _File(Need, frozen=True, kw_only=True):
  """A file as it is written."""

  binary: _Text
  output: _Text
  repeats: _Repeats | None = None  # None: no --seed is given
  flags: Flags = {}
  grid: dict[str, Any] | None = None
  comparison: _Comparison | None = None


class Choice(NamedTuple):
  """A place on an axis of the grid."""

  name: str
  flags: Flags


class Table(NamedTuple):
  """A file of runs, as it says; nothing of it is multiplied out."""

  path: pathlib.Path
  text: str
  binary: str
  output: str
  repeats: int | None
  need: Need
  flags: Flags
  axes: dict[str, list[Choice]]
  streams: list[str]  # of a comparison, as are
  systems: list[str]


class KeyProblem(UserError):
  """What is wrong with the value of a key of a table."""

  def __init__(self, keys: Keys, words: str):
    super().__init__(f"{'.'.join(keys)}: {words}")
    self.keys = keys


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
  """Reads a file; a UserError names the line and the key that are wrong."""
  try:
    with path.open("rb") as file:
      data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
      raise ValueError(f"it has more than {_MAX_FILE >> 20} MB")
    text = data.decode("utf-8")
    content = tomllib.loads(text)
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
    return _table(path, text, content)
  except UserError as error:
    raise located(path, text, error) from None


def located(path: pathlib.Path, text: str, error: UserError) -> UserError:
  """The error with its file, and its line if the key is in one."""
  line = _line(text, error.keys) if isinstance(error, KeyProblem) else None
  where = f"{path}, line {line}" if line else str(path)
  return UserError(f"{where}: {error}")


def _line(text, keys):
  """Where a key is given, else what it would be in; None where neither is."""
  found, section = {}, ()
  for number, row in enumerate(text.splitlines(), 1):
    if match := re.match(r"\s*\[+\s*([^\]=]+?)\s*\]", row):
      section = _names(match[1])
      found.setdefault(section, number)
    elif match := re.match(r"\s*([\w.\"' -]+?)\s*=", row):
      found.setdefault((*section, *_names(match[1])), number)
  ends = (keys[:count] for count in range(len(keys), 0, -1))
  return next((found[key] for key in ends if key in found), None)


def _names(dotted):
  return tuple(name.strip(" \"'") for name in dotted.split("."))


def _table(path, text, content):
  is_comparison = content.get("binary") == COMPARE
  wanted, other = ("comparison", "grid")[:: 1 if is_comparison else -1]
  if other in content:
    raise KeyProblem((other,), f"[{wanted}] is for this binary")
  file = _typed(content, _File)
  if file.binary not in {COMPARE, *FOLDER_FLAGS}:
    known = ", ".join([*FOLDER_FLAGS, COMPARE])
    raise KeyProblem(("binary",), f"{file.binary!r} is not one of {known}")
  if is_comparison and file.comparison is None:
    raise KeyProblem(("comparison",), "it is missing")
  lists = {"streams": [], "systems": []}
  for name in lists if is_comparison else ():
    texts = getattr(file.comparison, name)
    lists[name] = [_expanded(x, ("comparison", name)) for x in texts]
  return Table(
    path=path,
    text=text,
    binary=file.binary,
    output=_expanded(file.output, ("output",)),
    repeats=file.repeats,
    need=Need(file.cores, file.memory_gb, file.gpus),
    flags=_flags(file.flags, ("flags",)),
    axes={name: _axis(name, x) for name, x in (file.grid or {}).items()},
    **lists,
  )


def _typed(value, kind, keys: Keys = ()):
  """A value of a file as it must be."""
  try:
    return msgspec.convert(value, kind)
  except msgspec.ValidationError as error:
    words, _, place = str(error).partition(" - at `$")
    keys += tuple(re.findall(r"\w+", place))
    if match := re.search(r"(unknown|required) field `(\w+)`", words):
      known = msgspec.structs.fields(_Comparison if keys else kind)
      names = ", ".join(sorted(field.name for field in known))
      words = f"there is no such key; known are {names}"
      if match[1] == "required":
        words = "it is missing"
      keys += (match[2],)
    raise KeyProblem(keys, words[:1].lower() + words[1:]) from None


def _axis(name, values):
  """The choices on an axis, given as values of one flag or as named groups."""
  keys = ("grid", name)
  if not isinstance(values, list | dict) or not values:
    raise KeyProblem(
      keys, f"a list of values, or sections [grid.{name}.NAME] of flags"
    )
  if isinstance(values, list):
    choices = (_flags({name: value}, ("grid",)) for value in values)
    return [Choice(f"{name}={flags[name]}", flags) for flags in choices]
  sections = {x: _typed(values[x], Flags, (*keys, x)) for x in values}
  return [Choice(x, _flags(sections[x], (*keys, x))) for x in values]


def _flags(section, keys):
  """Flags with plain values, their variables expanded."""
  flags = {}
  for name, value in section.items():
    here = (*keys, name)
    if not _FLAG.fullmatch(name):
      raise KeyProblem(here, "this is no name of a flag")
    value = _typed(value, _Number, here)
    flags[name] = _expanded(value, here) if isinstance(value, str) else value
  return flags


def _expanded(text, keys):
  """A text with the environment's variables in it."""

  def of(match):
    name = match[1] or match[2]
    if name is None:
      return "$"
    if not os.environ.get(name):
      raise KeyProblem(keys, f"${name} is not set; export {name}=... first")
    return os.environ[name]

  return _VARIABLE.sub(of, text)
