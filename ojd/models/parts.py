"""The parts of a student, from frame to logits, by the names of its layers.

    part      JITNet                           MobileNetV2, DDRNet   HRNet
    front     conv1, conv2, enc1, enc2, enc3   backbone              backbone
    neck      dec1                             pyramid               stage4
    decoder   dec2, dec3, decoder_conv1, -2    head, head_norm       head
    head      logits                           logits                logits

A layer with another name belongs to no part.
"""

import re
from collections.abc import Collection

_LAYERS = {
  "front": r"conv\d+|enc\d+|backbone",
  "neck": r"dec1|pyramid|stage4",
  "decoder": r"dec\d+|decoder_conv\d+|head|head_norm",
  "head": r"logits",
}
PARTS = tuple(_LAYERS)
_UNIT = re.compile(r"_unit\d+$")  # a block of several units is one layer


def part_of(name: str) -> str | None:
  """The part that a parameter "layer/.../leaf" belongs to."""
  layer = _UNIT.sub("", name.split("/")[0])
  for part, pattern in _LAYERS.items():
    if re.fullmatch(pattern, layer):
      return part
  return None


def of_parts(names: Collection[str], *parts: str) -> set[str]:
  """The names of parameters that belong to any of `parts`."""
  return {name for name in names if part_of(name) in parts}


def of_norms(names: Collection[str]) -> set[str]:
  """The names of parameters of norms, the layers that have a scale."""
  parent = lambda name: name.rpartition("/")[0]
  norms = {parent(n) for n in names if n.rpartition("/")[2] == "scale"}
  return {name for name in names if parent(name) in norms}
