"""One grammar for everything that has a name and options.

    NAME[:PRESET][:OPTION=VALUE]...

as `jit:a_thresh=0.9`, `flow:fast`, `top_k:fraction=0.05`, `jitnet:width=0.25`.
A text is bound against a table of rows, each with a factory. The options are
the factory's keyword-only parameters that have a default and a plain type; the
default is the one in the signature, the help is the `Args:` of its docstring.

    a: int                      a whole number
    a: Annotated[float, Range(0, 1)]    a number within bounds
    a: Literal["x", "y"]        one of several values
    a: float | None             `none` is None

A colon inside a value is kept: after the first option, a piece without `=`
belongs to the value before it (`flow:flow=raft:FILE`).
"""

import collections
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from ojd.errors import UserError

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_UNBOUNDED = 2**30 - 1  # a bound of the machine's, not of the option
_NAME = re.compile(r"[A-Za-z_]\w*")
_KINDS = {int: "integer", float: "number", bool: "true|false"}


class Range(NamedTuple):
  """Bounds of a number, for `Annotated[float, Range(...)]`."""

  low: float
  high: float = math.inf
  is_low_open: bool = False  # whether the value has to be above `low`

  def contains(self, value: float) -> bool:
    """Whether a value is within the bounds; infinity and NaN never are."""
    is_above = value > self.low if self.is_low_open else value >= self.low
    return is_above and value <= self.high and math.isfinite(value)

  def __str__(self) -> str:
    low, high = (f"{x:.10g}" for x in (self.low, self.high))
    start = f"above {low}" if self.is_low_open else f"from {low}"
    if self.high >= _UNBOUNDED:
      return start if self.is_low_open else f"at least {low}"
    return f"{start} to {high}"


Count = Annotated[int, Range(1, 2**30 - 1)]  # twice a count is still an int32
Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, is_low_open=True)]


class Preset(NamedTuple):
  """Options that one word stands for."""

  options: Mapping[str, Any] = types.MappingProxyType({})


class Row(Protocol):
  """What a table holds under each name."""

  @property
  def factory(self) -> Callable[..., Any]:
    """Takes the options as keywords."""

  @property
  def presets(self) -> Mapping[str, Any]:
    """By name something with `options`."""


class Entry(NamedTuple):
  """A row that needs nothing more than its factory."""

  factory: Callable[..., Any]
  presets: Mapping[str, Preset] = types.MappingProxyType({})


class Spec(NamedTuple):
  """A text, taken apart; nothing is known of its name yet."""

  text: str
  name: str
  preset: str  # empty without one
  options: tuple[tuple[str, str], ...]


class Option(NamedTuple):
  """A keyword of a factory that a text may set."""

  name: str
  kind: Any  # int, float, bool, str or a tuple of values
  is_optional: bool  # whether `none` is a value
  range: Range | None
  default: Any
  about: str  # from the docstring

  def values(self) -> str:
    """What may be given, in words."""
    if isinstance(self.kind, tuple):
      words = "|".join(map(str, self.kind))
    else:
      words = _KINDS.get(self.kind, "text")
    words += f", {self.range}" if self.range else ""
    return words + (", or none" if self.is_optional else "")


class Bound(NamedTuple):
  """A name with all its options, by value."""

  name: str
  preset: str
  row: Any  # of the table
  options: Mapping[str, Any]  # every option of the factory
  chosen: Mapping[str, Any]  # those that differ from the defaults
  given: frozenset[str] = frozenset()  # names in the text and in flags

  def make(self, *args: Any, **context: Any) -> Any:
    """Calls the factory.

    Args:
      *args: its positional arguments.
      **context: its keywords that are no options.
    """
    return self.row.factory(*args, **context, **self.options)

  def __str__(self) -> str:
    """The shortest text that means the same, whatever flags there are."""
    chosen = [f"{name}={as_text(value)}" for name, value in self.chosen.items()]
    return ":".join([self.name, *filter(None, [self.preset]), *chosen])


def extends(
  *bases: Callable[..., Any], without: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Says that a factory hands its `**keywords` on to other factories.

  The options of those are then its own as well, with their help, and their
  defaults are filled in; what both name is the decorated factory's.

  Args:
    *bases: factories.
    without: options of theirs that are not handed on.
  """

  def decorate(factory):
    own = inspect.signature(factory)
    parameters = [
      p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD
    ]
    taken = {p.name for p in parameters} | set(without)
    defaults = {}
    for base in bases:
      for parameter in inspect.signature(base).parameters.values():
        is_new = parameter.name not in taken
        if parameter.kind is parameter.KEYWORD_ONLY and is_new:
          parameters.append(parameter)
          taken.add(parameter.name)
          if parameter.default is not parameter.empty:
            defaults[parameter.name] = parameter.default

    @functools.wraps(factory)
    def extended(*args, **keywords):
      return factory(*args, **defaults | keywords)

    extended.__signature__ = own.replace(parameters=parameters)
    extended.extends = bases
    return extended

  return decorate


def parse(text: str, flag: str) -> Spec:
  """Takes a text apart by the grammar.

  Args:
    text: NAME[:PRESET][:OPTION=VALUE]...
    flag: where it comes from, for the error: "system" for `--system`.
  """
  name, *pieces = text.split(":")
  if not _NAME.fullmatch(name):
    raise UserError(f"--{flag}={text}: NAME[:PRESET][:OPTION=VALUE]...")
  preset, options = "", []
  for i, piece in enumerate(pieces):
    key, equals, value = piece.partition("=")
    if equals and _NAME.fullmatch(key):
      options.append((key, value))
    elif options:
      options[-1] = (options[-1][0], f"{options[-1][1]}:{piece}")
    elif i == 0 and piece:
      preset = piece
    else:
      raise UserError(
        f"--{flag}={text}: {piece!r} is no OPTION=VALUE, and a preset comes "
        "right after the name"
      )
  for key, count in collections.Counter(key for key, _ in options).items():
    if count > 1:
      raise UserError(f"--{flag}={text}: {key} is given twice")
  return Spec(text, name, preset, tuple(options))


def bind(
  text: str,
  table: Mapping[str, Row],
  flag: str,
  given: Mapping[str, Any] = types.MappingProxyType({}),
) -> Bound:
  """Finds a text's row and gives each of its options a value.

  An option of the text wins over one of its preset, that over the default.

  Args:
    text: by the grammar.
    table: rows by name.
    flag: where the text comes from: "system" for `--system`.
    given: options that have a flag of their own and were given there. They are
      those of the text, so one given in both places is refused.
  """
  spec = parse(text, flag)
  if spec.name not in table:
    raise UserError(f"--{flag}={text}: unknown; known are {', '.join(table)}")
  row = table[spec.name]
  known = {option.name: option for option in options_of(row.factory)}
  if spec.preset and spec.preset not in row.presets:
    presets = ", ".join(f"{spec.name}:{name}" for name in row.presets)
    words = f"it has {presets}" if presets else "it has none"
    if known:
      words += f", and the options {', '.join(known)}"
    raise UserError(
      f"--{flag}={text}: {spec.name} has no preset {spec.preset!r}; {words}"
    )
  preset = row.presets[spec.preset].options if spec.preset else {}
  values = {name: option.default for name, option in known.items()} | preset
  chosen = {}
  for name, word in spec.options:
    if name not in known:
      raise UserError(f"--{flag}={text}: {_refusal(spec.name, name, known)}")
    where = f"--{flag}={text}: {name}={word}"
    value = _parsed(word, known[name], where)
    chosen[name] = _checked(value, known[name], where)
  for name, value in given.items():
    where = f"--{name}={as_text(value)}"
    if name not in known:
      raise UserError(f"{where}: {_refusal(spec.name, name, known)}")
    if name in chosen:
      raise UserError(f"{where}: --{flag}={text} has {name}, too")
    chosen[name] = _checked(value, known[name], where)
  values |= chosen
  differing = {
    name: value
    for name, value in chosen.items()
    if value != preset.get(name, known[name].default)
  }
  given = frozenset(chosen)
  return Bound(spec.name, spec.preset, row, values, differing, given)


def options_of(factory: Callable[..., Any]) -> list[Option]:
  """The options of a factory, in the order of its signature."""
  hints = _hints(factory)
  abouts = _abouts(factory)
  found = []
  for name, parameter in inspect.signature(factory).parameters.items():
    if parameter.kind is not parameter.KEYWORD_ONLY:
      continue
    if parameter.default is parameter.empty:
      continue  # the caller gives it
    option = _option(name, hints.get(name), parameter.default)
    if option is not None:
      found.append(option._replace(about=abouts.get(name, "")))
  return found


def summary_of(factory: Callable[..., Any]) -> str:
  """The first line of a factory's docstring, without its full stop."""
  return (inspect.getdoc(factory) or "").split("\n\n")[0].rstrip(".").strip()


def describe(table: Mapping[str, Row]) -> str:
  """All names with their presets and options, for `--help` and the docs."""
  lines = []
  for name, row in table.items():
    lines.append(f"{name}: {' '.join(summary_of(row.factory).split())}")
    for preset, stands_for in row.presets.items():
      pairs = stands_for.options.items()
      words = " ".join(f"{key}={as_text(value)}" for key, value in pairs)
      lines.append(f"  {name}:{preset}  {words}".rstrip())
    lines += [
      f"  {option.name}={as_text(option.default)}  "
      f"{option.about or '(undocumented)'} ({option.values()})"
      for option in options_of(row.factory)
    ]
  return "\n".join(lines)


def _refusal(name, option, known):
  words = f"{name} has no option {option!r}"
  return words + (f"; it has {', '.join(known)}" if known else "; it has none")


def _option(name, hint, default):
  """The option that a parameter is; None where no text can stand for it."""
  bounds, is_optional = None, False
  while True:
    if typing.get_origin(hint) is Annotated:
      bounds = next(
        (x for x in hint.__metadata__ if isinstance(x, Range)), bounds
      )
      hint = hint.__origin__
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
      kinds = typing.get_args(hint)
      is_optional |= type(None) in kinds
      plain = [kind for kind in kinds if kind is not type(None)]
      if len(plain) > 1:  # a scalar or an array, as a sweep gives it
        plain = [type(default)]
      hint = plain[0]
    else:
      break
  if typing.get_origin(hint) is Literal:
    hint = typing.get_args(hint)
  elif hint not in (int, float, bool, str):
    return None
  return Option(name, hint, is_optional, bounds, default, "")


def _parsed(word, option, where):
  """The value that a word stands for."""
  kind = option.kind
  if option.is_optional and word.lower() == "none":
    return None
  if isinstance(kind, tuple):
    return {str(value): value for value in kind}.get(word, word)
  if kind is bool:
    if word.lower() in _TRUE + _FALSE:
      return word.lower() in _TRUE
    raise UserError(f"{where}: true or false")
  try:
    return kind(word)
  except ValueError:
    raise UserError(f"{where}: {option.values()}") from None


def _checked(value, option, where):
  """The value, unless it is out of the option's range."""
  if value is None and option.is_optional:
    return value
  if isinstance(option.kind, tuple) and value not in option.kind:
    raise UserError(f"{where}: one of {', '.join(map(str, option.kind))}")
  if option.range is not None and not option.range.contains(value):
    raise UserError(f"{where}: {option.values()}")
  return value


def as_text(value: Any) -> str:
  """A value as the grammar takes it."""
  if isinstance(value, bool) or value is None:
    return str(value).lower()
  return repr(value) if isinstance(value, float) else str(value)


def _lineage(factory):
  """The factory, and those that it extends."""
  yield factory
  for base in getattr(factory, "extends", ()):
    yield from _lineage(base)


def _hints(factory):
  found = {}
  for one in reversed(list(_lineage(factory))):
    found |= typing.get_type_hints(one, include_extras=True)
  return found


def _abouts(factory):
  """Each parameter's description in the `Args:` of the docstrings."""
  found = {}
  for one in reversed(list(_lineage(factory))):
    doc = inspect.getdoc(one) or ""
    _, _, args = doc.partition("\nArgs:\n")
    name = ""
    for line in args.splitlines():
      if line and not line.startswith(" "):
        break  # the next section
      start = re.match(r"  (\**\w+): (.*)", line)
      if start:
        name, words = start.groups()
        found[name] = words
      elif name and line.strip():
        found[name] += f" {line.strip()}"
  return found
