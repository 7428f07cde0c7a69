"""The value of `--link`: the network, the time of both ends, the codec.

    up_mbps=8,down_mbps=8,rtt_ms=60,teacher_ms=50,update_ms=10,codec=jpeg

`ideal` alone is a network without delay.
"""

from typing import NamedTuple

from ojd.errors import UserError
from ojd.network import messages
from ojd.network.simulation import Link, Pace

IDEAL = "ideal"
ORIGINAL, DECODED = "original", "decoded"


class Upload(NamedTuple):
  """How key frames travel."""

  codec: str = ""  # of messages.CODECS; empty: as the method has it
  kbps: float = 200.0  # what H264 may take
  quality: int = 90  # of JPEG
  labels: str = DECODED  # what the teacher looks at; or ORIGINAL


class Conditions(NamedTuple):
  """All that a text says."""

  link: Link = Link()
  pace: Pace = Pace()
  upload: Upload = Upload()


# Of a number in a text: least, most.
_RANGES = {
  "up_mbps": (1e-3, 1e6),
  "down_mbps": (1e-3, 1e6),
  "rtt_ms": (0.0, 1e5),
  "jitter_ms": (0.0, 1e5),
  "loss": (0.0, 0.9),
  **dict.fromkeys(Pace._fields, (0.0, 1e6)),
  "kbps": (1.0, 1e6),
  "quality": (1, 95),
}
_CHOICES = {"codec": messages.CODECS, "labels": (DECODED, ORIGINAL)}
_OUTAGE = "outage"  # as 10-15+40-42, in seconds
_MAX_OUTAGES, _MAX_SECONDS = 1000, 1e9
NAMES = (*Link._fields[:-1], _OUTAGE, *Pace._fields, *Upload._fields)


def parse(text: str) -> Conditions:
  """Reads the text; a UserError says what is wrong with it."""
  entries = {} if text.strip() == IDEAL else _split(text)
  found = {name: _value(name, value) for name, value in entries.items()}
  if _OUTAGE in found:
    found["outages"] = found.pop(_OUTAGE)
  of = lambda kind: kind(**{k: found[k] for k in kind._fields if k in found})
  return Conditions(of(Link), of(Pace), of(Upload))


def _split(text):
  """The entries by name, as they are written."""
  found = {}
  for entry in text.split(",") if text.strip() else ():
    name, equals, value = (part.strip() for part in entry.partition("="))
    if name not in NAMES:
      raise _problem(entry, f"unknown; known are {', '.join(NAMES)}")
    if name in found:
      raise _problem(entry, f"{name} is there twice")
    if not equals or not value:
      raise _problem(entry, f"{name} has no value")
    found[name] = value
  return found


def _value(name, text):
  """What an entry says."""
  entry = f"{name}={text}"
  if name == _OUTAGE:
    return _outages(entry, text)
  if name in _CHOICES:
    if text not in _CHOICES[name]:
      raise _problem(entry, f"one of {', '.join(_CHOICES[name])}")
    return text
  value = _number(entry, text, *_RANGES[name])
  if name != "quality":
    return value
  if value != int(value):
    raise _problem(entry, "a whole number")
  return int(value)


def _outages(entry, text):
  outages = []
  for piece in text.split("+"):
    start, dash, end = piece.partition("-")
    if not dash:
      raise _problem(entry, "an outage is START-END, in seconds")
    pair = [_number(entry, part, 0.0, _MAX_SECONDS) for part in (start, end)]
    if pair[0] >= pair[1] or (outages and pair[0] < outages[-1][1]):
      raise _problem(entry, "outages end after they start, one after the other")
    outages.append(tuple(pair))
  if len(outages) > _MAX_OUTAGES:
    raise _problem(entry, f"at most {_MAX_OUTAGES} outages")
  return tuple(outages)


def _number(entry, text, least, most):
  try:
    value = float(text)
  except ValueError:
    raise _problem(entry, f"{_quoted(text)} is no number") from None
  if not least <= value <= most:
    raise _problem(entry, f"from {least:g} to {most:g}")
  return value


def _problem(entry, words):
  """What is wrong with an entry, in a line."""
  return UserError(f"--link: {_quoted(entry)}: {words}")


def _quoted(text):
  text = text.strip()
  return repr(text if len(text) <= 60 else text[:57] + "...")
