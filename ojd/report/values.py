"""Values from files as words of a page; a dash for what is not known."""

import json
import math
from typing import Any

UNKNOWN = "\u2013"


def mapping(content: dict[str, Any], name: str) -> dict[str, Any]:
  """A mapping inside a mapping; empty where there is none."""
  value = content.get(name)
  return value if isinstance(value, dict) else {}


def is_number(x: Any) -> bool:
  """Whether a value from a file is a finite number."""
  if isinstance(x, int):  # JSON has whole numbers that no float can hold
    return not isinstance(x, bool) and abs(x) < 2**63
  return isinstance(x, float) and math.isfinite(x)


def number(x: Any) -> float | None:
  """A value from a file where it is a number, else None."""
  return x if is_number(x) else None


def integer(x: Any) -> str:
  """A whole number, as in 30,000."""
  return f"{int(x):,}" if is_number(x) else UNKNOWN


def fixed(x: Any, digits: int) -> str:
  """A number with so many digits after the point."""
  return f"{x:,.{digits}f}" if is_number(x) else UNKNOWN


def percent(x: Any) -> str:
  """A share, as in 1.6%."""
  return f"{100 * x:.1f}%" if is_number(x) else UNKNOWN


def times(x: Any) -> str:
  """A factor, as in 7.6x."""
  return f"{x:,.1f}\u00d7" if is_number(x) else UNKNOWN


def memory(megabytes: Any) -> str:
  """Of a process, as in 512 MB."""
  if is_number(megabytes) and megabytes >= 1024:
    return f"{megabytes / 1024:.1f} GB"
  return f"{megabytes:,.0f} MB" if is_number(megabytes) else UNKNOWN


def size(num_bytes: Any) -> str:
  """Of a file, as in 6.2 kB."""
  if not is_number(num_bytes):
    return UNKNOWN
  for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
    if num_bytes >= one:
      return f"{num_bytes / one:,.1f} {unit}"
  return f"{num_bytes:,.0f} B"


def counted(x: Any, word: str) -> str:
  """A number of things: "1 update", "8 updates"."""
  return f"{integer(x)} {word}{'' if x == 1 else 's'}"


def plain(value: Any) -> str:
  """A flag's value; text stands as it is."""
  if value is None:
    return UNKNOWN
  return value if isinstance(value, str) else json.dumps(value)


FILTERS = (integer, fixed, percent, times, memory, size, counted, plain)
