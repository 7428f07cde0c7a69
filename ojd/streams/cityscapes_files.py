"""The layout of Cityscapes on a disk: which snippets there are, their files."""

import pathlib
import re
from typing import NamedTuple

from ojd.errors import UserError
from ojd.streams import base, image_files

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


def choose(address: base.Address) -> list[Snippet]:
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
  try:
    root = pathlib.Path(address.path).expanduser()
  except RuntimeError:
    raise UserError(
      f"--stream=cityscapes:{address.path}: no such home"
    ) from None
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
  for path in image_files.list_images(folder, (".png",)):
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
