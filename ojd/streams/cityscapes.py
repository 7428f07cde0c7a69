"""`cityscapes:DIR?split=val&city=frankfurt`: snippets of Cityscapes as a video.

    DIR/leftImg8bit_sequence/val/frankfurt/
        frankfurt_000000_000275_leftImg8bit.png, ...
    DIR/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png

A snippet has thirty frames, and the twentieth has labels. Those of a split
(`val`), of a city or of one `seq=000000` are played in order, with a cut from
each to the next; `frame=294` chooses the one that has this frame.

The classes are the nineteen of the benchmark, behind a background that no pixel
has: what is none of them is ignored. A frame without labels has no truth.
"""

import pathlib
import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME
from ojd.streams import base, images
from ojd.types import IGNORE

FPS = 17.0
# The classes in the benchmark's order, by their numbers in the labels.
CLASSES = {
  **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence"},
  **{17: "pole", 19: "traffic light", 20: "traffic sign", 21: "vegetation"},
  **{22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
  **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
_OPTIONS = ("split", "city", "seq", "frame")
_MODES = ("L", "P")  # of Pillow, in which a pixel is a number
SNIPPET = 30  # frames, of which the 20th has labels
_FRAMES, _LABELS = "leftImg8bit_sequence", "gtFine"
_SINGLE = "leftImg8bit"  # the labelled frames alone
_FRAME_NAME = re.compile(r"(.+)_(\d+)_(\d+)_leftImg8bit\.png")
_LABEL_END = "_gtFine_labelIds.png"


class Frame(NamedTuple):
  """One frame of a city's drive."""

  city: str
  seq: str  # digits, as in its name
  number: int
  path: pathlib.Path
  labels: pathlib.Path | None


class Snippet(NamedTuple):
  """Frames without a gap."""

  name: str  # as that of its first frame
  frames: list[Frame]


def _make_lookup():
  lookup = np.full(256, IGNORE, np.uint8)
  lookup[list(CLASSES)] = range(1, len(CLASSES) + 1)
  return lookup


_LOOKUP = _make_lookup()  # [256] uint8, number in the labels -> class


class CityscapesStream(images.FilesStream):
  """Snippets in turn, in one size."""

  def __init__(self, frames: list[Frame], spec: base.StreamSpec):
    """Takes the frames of all snippets in order."""
    super().__init__([frame.path for frame in frames], spec)
    self._labels = [frame.labels for frame in frames]

  def _truth(self, t, size):
    if self._labels[t] is None:
      return None
    with images.opened(self._labels[t]) as image:
      if image.mode not in _MODES:
        raise ValueError(f"labels are numbers, not colours of {image.mode}")
      numbers = Image.fromarray(np.asarray(image))
      numbers = images.resized(numbers, size, Image.Resampling.NEAREST)
      return _LOOKUP[np.asarray(numbers)]


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> CityscapesStream:
  """Finds the files; reads the head of the first frame only."""
  address.refuse_others(*_OPTIONS)
  snippets = _choose(address)
  frames = [frame for snippet in snippets for frame in snippet.frames]
  labels = [frame.labels for frame in frames if frame.labels is not None]
  names = (BACKGROUND_NAME, *CLASSES.values()) if labels else ()
  paths = [frame.path for frame in frames]
  spec = base.resized_spec(
    *(images.first_size(paths)[::-1], height, width),
    fps=FPS,
    num_frames=len(frames),
    class_names=names,
    identity={
      "kind": "cityscapes",
      # Which labels are of which frame is said by their names.
      "snippets": [[x.name, len(x.frames)] for x in snippets],
      "frames": images.fingerprint(paths),
      "labels": images.fingerprint(labels),
    },
  )
  return CityscapesStream(frames, spec)


def _choose(address: base.Address) -> list[Snippet]:
  """The snippets to play, in the order of their names."""
  root = _root(address)
  folder = _inside(root / _FRAMES, "split", address, "val")
  labels = root / _LABELS / folder.name
  cities = [folder / name for name in _folders(folder)]
  if "city" in address.options:
    cities = [_inside(folder, "city", address, "")]
  snippets = []
  for city in cities:
    snippets += _cut(_list_frames(city, labels / city.name))
  if not snippets:
    raise UserError(f"--stream: {folder} holds no *_leftImg8bit.png files")
  snippets = _with_seq(snippets, address)
  return _with_frame(snippets, address)


def _root(address):
  root = address.expanded()
  if not (root / _FRAMES).is_dir():
    hint = ""
    if (root / _SINGLE).is_dir():
      hint = f"; {_SINGLE} has one frame of each snippet, which is no video"
    raise UserError(f"--stream: there is no folder {root / _FRAMES}{hint}")
  return root


def _inside(folder, option, address, default):
  """The folder in a folder that an option names."""
  name = address.option(option, str, default)
  known = _folders(folder)
  if name not in known:
    raise UserError(
      f"--stream: {folder} has no {option} {name!r}; it has "
      f"{base.listed(known) or 'none'}"
    )
  return folder / name


def _folders(folder):
  return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _list_frames(folder, labels):
  """The frames of a city, each with the labels of its name."""
  found = []
  for path in images.list_images(folder, (".png",)):
    if match := _FRAME_NAME.fullmatch(path.name):
      city, seq, number = match.groups()
      label = labels / f"{city}_{seq}_{number}{_LABEL_END}"
      label = label if label.is_file() else None
      found.append(Frame(city, seq, int(number), path, label))
  return sorted(found, key=lambda frame: (frame.seq, frame.number))


def _cut(frames):
  """Snippets of a city: they end where numbers leap, or where they are full."""
  snippets = []
  for frame in frames:
    last = snippets[-1][-1] if snippets else None
    is_next = last is not None and last.seq == frame.seq
    is_next = is_next and last.number + 1 == frame.number
    if is_next and len(snippets[-1]) < SNIPPET:
      snippets[-1].append(frame)
    else:
      snippets.append([frame])
  return [
    Snippet(f"{x[0].city}_{x[0].seq}_{x[0].number:06d}", x) for x in snippets
  ]


def _with_seq(snippets, address):
  wanted = address.option("seq", str, None)
  if wanted is None:
    return snippets
  known = sorted({snippet.frames[0].seq for snippet in snippets})
  if wanted not in known:
    raise UserError(
      f"--stream: there is no seq {wanted!r}; there are {base.listed(known)}"
    )
  return [x for x in snippets if x.frames[0].seq == wanted]


def _with_frame(snippets, address):
  """The snippet that a frame belongs to, as those of Frankfurt share a seq."""
  wanted = address.option("frame", int, None)
  if wanted is None:
    return snippets
  found = [x for x in snippets if wanted in {f.number for f in x.frames}]
  if not found:
    spans = [f"{x.frames[0].number} to {x.frames[-1].number}" for x in snippets]
    raise UserError(
      f"--stream: there is no frame {wanted}; there are {base.listed(spans)}"
    )
  return found
