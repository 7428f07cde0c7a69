"""A list in a text file, an entry a line."""

import pathlib

from ojd.errors import UserError


def read(path: pathlib.Path, flag: str, most: int) -> list[tuple[int, str]]:
  """Its lines with their numbers; empty lines and # lines are left out.

  Args:
    path: of the file.
    flag: of the file, for errors.
    most: of its bytes, a whole number of MB.
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
