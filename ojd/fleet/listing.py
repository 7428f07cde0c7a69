"""The list of a fleet's streams: a file with a line for each."""

import pathlib
import re
from typing import NamedTuple

from ojd.errors import UserError
from ojd.formats import line_list
from ojd.streams import base

_MAX_FILE = 16 << 20  # bytes
_MAX_STREAMS = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Entry(NamedTuple):
  """A stream of the list."""

  name: str  # of its folder; empty: the list gives it none
  uri: str


def read(path: pathlib.Path) -> tuple[list[Entry], list[str]]:
  """Reads lines `URI` or `NAME, URI`; empty ones and # lines mean nothing.

  Returns:
    The streams, each of them once, and a line about each that is left out.
  """
  entries, notes = [], []
  seen: dict[str, int] = {}
  for number, line in line_list.read(path, "streams", _MAX_FILE):
    entry = _entry(line)
    if entry.uri in seen:
      shown = base.without_password(entry.uri)
      there = f"line {seen[entry.uri]} has it already"
      notes.append(f"line {number} is left out: {shown}: {there}")
      continue
    seen[entry.uri] = number
    entries.append(entry)
  if not entries:
    raise UserError(f"--streams={path}: it names no stream")
  if len(entries) > _MAX_STREAMS:
    raise UserError(
      f"--streams={path}: {len(entries)} streams; at most {_MAX_STREAMS}"
    )
  return entries, notes


def _entry(line):
  """A name has no colon and no slash, which every address with a comma has."""
  name, comma, uri = (part.strip() for part in line.partition(","))
  if comma and uri and _NAME.fullmatch(name):
    return Entry(name, uri)
  return Entry("", line)


def named(
  entries: list[Entry], known: dict[str, str]
) -> tuple[list[Entry], list[str]]:
  """The same with a name for each, and a line about each that has none.

  Args:
    entries: of `read`.
    known: the names that streams have had before, by their addresses without
      passwords.
  """
  taken = {name: uri for uri, name in known.items()}
  given, notes = [], []
  # Names that were chosen go before those that are made up.
  for entry in sorted(entries, key=lambda entry: not entry.name):
    shown = base.without_password(entry.uri)
    name = entry.name or known.get(shown) or _made_up(shown, taken)
    if taken.setdefault(name, shown) != shown:
      notes.append(f"{shown} is left out: {name} is the name of {taken[name]}")
      continue
    given.append(Entry(name, entry.uri))
  order = {entry.uri: i for i, entry in enumerate(entries)}
  return sorted(given, key=lambda entry: order[entry.uri]), notes


def _made_up(uri, taken):
  """Of what an address says last, and a number where that is taken."""
  words = re.sub(r"[^A-Za-z0-9.]+", "-", uri)
  stem = words.strip("-.")[-48:].strip("-.") or "stream"
  name, number = stem, 2
  while name in taken:
    name, number = f"{stem}-{number}", number + 1
  return name
