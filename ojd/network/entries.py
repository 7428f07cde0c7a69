"""Reads `name=value,...` of `--link`: what is wrong is told in one line."""

from collections.abc import Sequence

from ojd.errors import UserError


def split(text: str, known: Sequence[str]) -> dict[str, str]:
  """The values by name.

  Args:
    text: entries with commas between them; may be empty.
    known: the names that there are.
  """
  found = {}
  for entry in text.split(",") if text.strip() else ():
    name, equals, value = (part.strip() for part in entry.partition("="))
    if name not in known:
      raise problem(entry, f"unknown; known are {', '.join(known)}")
    if name in found:
      raise problem(entry, f"{name} is there twice")
    if not equals or not value:
      raise problem(entry, f"{name} has no value")
    found[name] = value
  return found


def number(entry: str, text: str, least: float, most: float) -> float:
  """A number between two others."""
  try:
    value = float(text)
  except ValueError:
    raise problem(entry, f"{_short(text)} is no number") from None
  if not least <= value <= most:
    raise problem(entry, f"from {least:g} to {most:g}")
  return value


def choice(entry: str, text: str, known: Sequence[str]) -> str:
  """One of some words."""
  if text not in known:
    raise problem(entry, f"one of {', '.join(known)}")
  return text


def problem(entry: str, words: str) -> UserError:
  """What is wrong with an entry."""
  return UserError(f"--link: {_short(entry)}: {words}")


def _short(text):
  text = text.strip()
  return repr(text if len(text) <= 60 else text[:57] + "...")
