r"""What a comparison is asked for, read from words: streams and systems.

    folder:clips/a@Sports (Fixed),synthetic:street?seed=1
    jit:a_thresh=0.7,jit:update=adam:learning_rate=0.003,flow:slow

A comma ends an entry, a colon a part of a system, and the last @ of a stream
begins its category; \, \: and \@ are the characters themselves.
"""

import dataclasses
import pathlib
import re
import typing
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from ojd import specs, systems
from ojd.errors import UserError
from ojd.formats import line_list
from ojd.run import config as config_lib
from ojd.run.config import RunConfig
from ojd.streams import base, lvs

# What is the same for all systems, or is about what a run writes down. All
# other fields of RunConfig concern the student's life.
_SHARED = {
  *("stream", "teacher", "teacher_process", "teacher_timeout", "async_teacher"),
  *("system", "workdir", "classes", "height", "width"),
  *("start_frame", "every", "num_frames", "seed", "eval_every"),
  *("checkpoint_every", "overlay", "save_masks", "boxes", "areas"),
  *("tensorboard", "wandb"),
}
OPTIONS = tuple(
  f.name for f in dataclasses.fields(RunConfig) if f.name not in _SHARED
)
_MAX_FILE = 1 << 20  # bytes of a list of streams
_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}
_LETTERS = {
  **{"auto": "A", "bird": "Bi", "bike": "Bk", "car": "C", "dog": "D"},
  **{"elephant": "E", "giraffe": "G", "horse": "H", "person": "P"},
}


class StreamEntry(NamedTuple):
  """A stream as a row of the table."""

  uri: str
  name: str
  category: str = ""  # without one it is in the overall average alone


class SystemEntry(NamedTuple):
  """A system as a column of the table."""

  label: str
  name: str  # of systems.METHODS
  word: str = ""  # a preset of its own
  # Fields of RunConfig, and options of the method.
  options: tuple[tuple[str, Any], ...] = ()

  @property
  def flag(self) -> str:
    """As --system takes it; flags of a run are not in it."""
    own = [
      f"{n}={specs.as_text(v)}" for n, v in self.options if n not in OPTIONS
    ]
    return ":".join([self.name, *filter(None, [self.word]), *own])

  @property
  def flags(self) -> dict[str, Any]:
    """Fields of RunConfig that it sets, beside that of the system."""
    return {n: v for n, v in self.options if n in OPTIONS}

  @property
  def curve(self) -> str:
    """What it shares with the same method at other numbers."""
    kinds = [f"{n}={v}" for n, v in self.options if isinstance(v, str)]
    return " ".join([self.name, *kinds])

  @property
  def setting(self) -> str:
    """In what it differs from others on its curve."""
    numbers = [f"{n}={v}" for n, v in self.options if not isinstance(v, str)]
    return " ".join([self.word, *numbers]).strip()

  def without(self, option: str) -> "SystemEntry":
    """The same without an option."""
    options = tuple((n, v) for n, v in self.options if n != option)
    words = [f"{n}={v}" for n, v in options]
    label = " ".join(filter(None, [self.name, self.word, *words]))
    return self._replace(label=label, options=options)


def split(text: str, separator: str) -> list[str]:
  """The pieces between separators that have no backslash before them."""
  return re.split(rf"(?<!\\){re.escape(separator)}", text)


def _plain(text):
  return re.sub(r"\\([,:@])", r"\1", text.strip())


def parse_streams(texts: Iterable[str]) -> list[StreamEntry]:
  """Reads `URI[@Category],...` of one flag or several."""
  entries = []
  for entry in (piece for text in texts for piece in split(text, ",")):
    if not entry.strip():
      raise UserError(r"--streams: an empty entry; \, is a comma in one")
    *rest, last = split(entry, "@")
    uri, category = ("@".join(rest), last) if rest else (last, "")
    entries.append(_stream(_plain(uri), _plain(category)))
  return _checked(entries)


def read_streams_file(path: pathlib.Path) -> list[StreamEntry]:
  """Reads lines `category, name, URI`; empty ones and # lines mean nothing."""
  entries = []
  for number, line in line_list.read(path, "streams_file", _MAX_FILE):
    category, *rest = (part.strip() for part in line.split(",", 2))
    if len(rest) < 2 or not rest[1]:
      raise UserError(
        f"--streams_file={path}: line {number} is not category, name, URI"
      )
    entries.append(_stream(rest[1], category, rest[0]))
  if not entries:
    raise UserError(f"--streams_file={path}: it names no stream")
  return _checked(entries)


def _stream(uri, category, name=""):
  """An entry; what is not said is found in the address."""
  address = base.parse_address(uri)
  if base.SCHEMES[address.scheme] == "ojd.streams.live":
    raise UserError(
      f"--streams: {base.without_password(uri)} is live: no two systems would "
      "see the same frames; record it as a video first"
    )
  known = None
  if address.scheme == "lvs":
    known = lvs.STREAMS.get(pathlib.Path(address.path).name)
  if known and known.category != lvs.OVERALL:
    category = category or known.category
  return StreamEntry(uri, name or _name(address, known), category)


def _name(address, known):
  if known:
    groups = (part.partition("=")[0] for part in known.classes.split(";"))
    return f"{known.name} ({','.join(_LETTERS[g] for g in groups)})"
  options = {k: v for k, v in address.options.items() if k != "num_frames"}
  if address.scheme == "concat":
    return address.path
  path = pathlib.Path(address.path)
  name = path.stem if address.scheme == "video" else path.name
  name = options.pop("seq", name or address.path)
  return " ".join([name, *(f"{k}={v}" for k, v in options.items())])


def _checked(entries):
  """Refuses a repeated stream, and numbers equal names."""
  (uri, count), *_ = Counter(entry.uri for entry in entries).most_common(1)
  if count > 1:
    raise UserError(f"--streams: {uri} is listed twice")
  seen: Counter[str] = Counter()
  named = []
  for entry in entries:
    seen[entry.name] += 1
    number = seen[entry.name]
    name = entry.name if number == 1 else f"{entry.name} ({number})"
    named.append(entry._replace(name=name))
  return named


def parse_systems(text: str) -> list[SystemEntry]:
  """Reads `NAME[:WORD or OPTION=VALUE]...,...`."""
  return [_system(entry.strip()) for entry in split(text, ",")]


def _system(entry):
  name, *parts = (_plain(part) for part in split(entry, ":"))
  if name not in systems.METHODS:
    raise UserError(
      f"--systems: {entry!r}: there is no system {name!r}; known are "
      f"{', '.join(systems.METHODS)}"
    )
  word, options = "", {}
  for part in parts:
    option, equals, value = (x.strip() for x in part.partition("="))
    if equals:
      if option in options:
        raise UserError(f"--systems: {entry!r}: {option} is listed twice")
      options[option] = _value(entry, name, option, value)
    elif word or not part:
      raise UserError(
        f"--systems: {entry!r}: after the name come one word at most and "
        "OPTION=VALUE, joined by colons"
      )
    else:
      word = part
  label = " ".join([name, *parts])
  return SystemEntry(label, name, word, tuple(options.items()))


def _value(entry, name, option, value):
  """The value as the type of its field, or of the method's option."""
  own = systems.METHODS[name].factory
  own = [one.name for one in specs.options_of(own)]
  if option not in OPTIONS and option in own:
    return systems.bind(f"{name}:{option}={value}").options[option]
  if option not in OPTIONS:
    known = dict.fromkeys([*own, *OPTIONS])
    raise UserError(
      f"--systems: {entry!r}: there is no option {option!r}; known are "
      f"{', '.join(known)}"
    )
  hint = typing.get_type_hints(RunConfig)[option]
  kind = (typing.get_args(hint) or (hint,))[0]
  try:
    if kind is bool:
      return {"true": True, "false": False}[value.lower()]
    return kind(value)
  except (ValueError, KeyError):
    raise UserError(
      f"--systems: {entry!r}: {option} takes {_WORDS[kind]}, not {value!r}"
    ) from None


def of_updates(names: Iterable[str]) -> list[SystemEntry]:
  """`jit` with each gradient step."""
  return [
    SystemEntry(f"jit update={name}", "jit", "", (("update", name),))
    for name in names
  ]


def config_of(
  base_config: RunConfig,
  stream: StreamEntry,
  system: SystemEntry,
  seed: int,
  path: pathlib.Path,
) -> RunConfig:
  """The run of a stream and a system."""
  config = dataclasses.replace(
    base_config,
    stream=stream.uri,
    system=system.flag,
    seed=seed,
    workdir=str(path),
    **system.flags,
  )
  # Flags of the whole comparison are for those systems that use them.
  return config_lib.without_unused(config, kept=system.flags.keys())


def check_used(
  shared: RunConfig, stream: StreamEntry, entries: Iterable[SystemEntry]
) -> None:
  """Refuses a flag of all systems that none of them uses."""
  of = lambda x: config_of(shared, stream, x, shared.seed, pathlib.Path("run"))
  configs = [of(entry) for entry in entries]
  for name in config_lib.OF_LEARNING:
    value = getattr(shared, name)
    is_used = any(getattr(config, name) == value for config in configs)
    if value is not None and not is_used:
      raise UserError(f"--{name}={value}: none of the systems uses it")
