"""What `--link` says: the network, how long the two ends take, what is sent.

    up_mbps=8,down_mbps=8,rtt_ms=60,teacher_ms=50,update_ms=10,codec=jpeg

`ideal` alone is a network on which everything is there at once.
"""

from typing import NamedTuple

from ojd.network import entries, messages
from ojd.network import link as link_lib
from ojd.network.link import Link

IDEAL = "ideal"
ORIGINAL, DECODED = "original", "decoded"


class Pace(NamedTuple):
  """How long something takes, in milliseconds of the stream's time."""

  teacher_ms: float = 0.0  # a frame that the server labels
  update_ms: float = 0.0  # an update of the student there
  device_ms: float = 0.0  # a frame on the device


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


_PACES = (0.0, 1e6)
NAMES = (*link_lib.NAMES, *Pace._fields, *Upload._fields)


def parse(text: str) -> Conditions:
  """Reads the text; a UserError says in a line what is wrong with it."""
  found = {} if text.strip() == IDEAL else entries.split(text, NAMES)
  pace = {
    name: entries.number(f"{name}={found[name]}", found[name], *_PACES)
    for name in Pace._fields
    if name in found
  }
  return Conditions(link_lib.parse(found), Pace(**pace), _upload(found))


def _upload(found):
  upload = Upload()
  entry = lambda name: f"{name}={found[name]}"
  if "codec" in found:
    codec = entries.choice(entry("codec"), found["codec"], messages.CODECS)
    upload = upload._replace(codec=codec)
  if "kbps" in found:
    kbps = entries.number(entry("kbps"), found["kbps"], 1.0, 1e6)
    upload = upload._replace(kbps=kbps)
  if "quality" in found:
    quality = entries.number(entry("quality"), found["quality"], 1, 95)
    if quality != int(quality):
      raise entries.problem(entry("quality"), "a whole number")
    upload = upload._replace(quality=int(quality))
  if "labels" in found:
    known = (DECODED, ORIGINAL)
    labels = entries.choice(entry("labels"), found["labels"], known)
    upload = upload._replace(labels=labels)
  return upload
