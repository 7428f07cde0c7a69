"""A list that a person has written: a text file with a line for each entry."""

import pathlib

from ojd.errors import UserError


def read(path: pathlib.Path, flag: str, most: int) -> list[tuple[int, str]]:
  """Its lines with their numbers; empty ones and # lines mean nothing.

  Args:
    path: of the file.
    flag: that named it, for errors.
    most: bytes of it, a whole number of MB.
  """
  try:
    with path.open("rb") as file:
      text = file.read(most + 1).decode("utf-8")
    if len(text) > most:
      raise ValueError(f"more than {most >> 20} MB")
  except (OSError, ValueError) as error:
    words = getattr(error, "strerror", None) or "it is no list of streams"
    raise UserError(f"--{flag}={path}: {words}") from None
  lines = enumerate((line.strip() for line in text.splitlines()), 1)
  return [(n, line) for n, line in lines if line and not line.startswith("#")]
