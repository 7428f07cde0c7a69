"""Files that a reader finds whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a path to write to, which takes the place of `path` at the end.

  Where writing fails, what was there stays, and nothing is left beside it.
  """
  beside = path.with_name(path.name + ".part")
  try:
    yield beside
    os.replace(beside, path)
  except BaseException:
    # On a full disk its room is what others need.
    with contextlib.suppress(OSError):
      beside.unlink(missing_ok=True)
    raise
