"""Files of JSON lines that an interrupted run goes on with."""

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from ojd.formats import append_log


class JsonLines:
  """Appends lines; what is written together is there whole or not at all."""

  def __init__(self, path: pathlib.Path, is_kept: Callable[[int, bytes], bool]):
    """Opens the file and cuts it off at the first line that is not kept.

    Args:
      path: of the file.
      is_kept: of the index of a whole line and the line.
    """
    file = path.open("ab+", buffering=0)
    self._file = append_log.Appender(file, _end(path, is_kept))

  def write(self, lines: Iterable[dict[str, Any]]) -> None:
    """Each line reaches the file at once."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    self._file.add(text.encode())

  def close(self) -> None:
    """Lets the file go."""
    self._file.close()


def _end(path, is_kept):
  """Bytes of the first lines that are whole and kept."""
  end = 0
  with path.open("rb") as file:
    for index, line in enumerate(file):
      if not line.endswith(b"\n") or not is_kept(index, line):
        break
      end += len(line)
  return end


def is_before(start: int, key: str) -> Callable[[int, bytes], bool]:
  """Keeps lines whose `key`, the index of a frame, is below `start`."""

  def is_kept(index: int, line: bytes) -> bool:
    del index
    try:
      return json.loads(line)[key] < start
    except (ValueError, KeyError, TypeError):
      return False

  return is_kept
