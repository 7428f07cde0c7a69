"""`folder:DIR`: frames, and where there are some, masks, as image files.

DIR/frames/* and DIR/masks/* are paired in sorted order. DIR/stream.json says
what the grey values of the masks mean:

    {"fps": 25,
     "classes": {"0": "background", "255": "moving", "170": "ignore"}}

The classes become 1, 2, ... in the order of their grey values; "background" is
always 0 and "ignore" always 255. Without masks the file is not needed.
"""

from typing import Annotated

import msgspec
import numpy as np
from PIL import Image

from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME
from ojd.streams import images
from ojd.streams.base import Address, StreamSpec, resized_spec
from ojd.types import IGNORE, MAX_CLASSES

IGNORE_NAME = "ignore"
DEFAULT_FPS = 25.0


class _Unlabelled(msgspec.Struct):
  """The description of a stream in stream.json."""

  fps: Annotated[float, msgspec.Meta(ge=0.01, le=1000)] = DEFAULT_FPS


class _Labelled(_Unlabelled, kw_only=True):
  """A description with the classes of the masks."""

  classes: dict[int, str]  # by grey value


class FolderStream(images.FilesStream):
  """Image files in sorted order, with the class maps beside them."""

  def __init__(self, frames, masks, lookup, spec: StreamSpec):
    super().__init__(frames, spec)
    self._masks, self._lookup = masks, lookup

  def _truth(self, t, size):
    if not self._masks:
      return None
    with images.opened(self._masks[t]) as image:
      # Grey values, never palette indices: a palette may be in any order.
      grey = images.resized(image.convert("L"), size, Image.Resampling.NEAREST)
      return np.asarray(grey.point(self._lookup.tolist()))


def open_stream(
  address: Address, height: int | None, width: int | None
) -> FolderStream:
  """Opens and checks the whole folder, so that a run does not end half-way."""
  address.refuse_others()
  root = address.expanded()
  frames = _list_images(root, "frames")
  if not frames:
    raise UserError(f"--stream: {root / 'frames'} holds no images")
  masks = _list_images(root, "masks") if (root / "masks").is_dir() else []
  if masks and len(masks) != len(frames):
    raise UserError(
      f"--stream: {len(frames)} frames and {len(masks)} masks in {root}; "
      "each frame needs its mask"
    )
  fps, classes = _read_description(root, needs_classes=bool(masks))
  names, lookup = _class_table(root, classes) if masks else ((), None)
  size = _common_size(frames)
  if masks and _common_size(masks) != size:
    raise UserError(
      f"--stream: masks of {_common_size(masks)} pixels do not match frames "
      f"of {size} in {root}"
    )
  spec = resized_spec(
    *(size[::-1], height, width),
    fps=fps,
    num_frames=len(frames),
    class_names=names,
    identity={
      "kind": "folder",
      "frames": images.fingerprint(frames),
      "masks": images.fingerprint(masks),
      "meaning": lookup.tobytes().hex() if masks else "",
    },
  )
  return FolderStream(frames, masks, lookup, spec)


def _list_images(root, name):
  folder = root / name
  if not folder.is_dir():
    raise UserError(f"--stream: there is no folder {folder}")
  return images.list_images(folder)


def _read_description(root, needs_classes):
  """Frame rate and classes of stream.json; without the file, the defaults."""
  path = root / "stream.json"
  if not path.exists():
    if needs_classes:
      raise UserError(
        f"--stream: {path} is missing; it says what the masks mean, as "
        '{"fps": 25, "classes": {"0": "background", "255": "object"}}'
      )
    return DEFAULT_FPS, {}
  kind = _Labelled if needs_classes else _Unlabelled
  try:
    found = msgspec.json.decode(path.read_bytes(), type=kind)
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(
      f"--stream: {path} is not a description of a stream ({error})"
    ) from None
  return found.fps, found.classes if needs_classes else {}


def _class_table(root, classes):
  """Class names in label order, and grey value -> label, [256] uint8."""
  # A grey value without a description is ignored.
  lookup = np.full(256, IGNORE, np.uint8)
  num_classes = len({BACKGROUND_NAME, *classes.values()} - {IGNORE_NAME})
  if num_classes > MAX_CLASSES:
    raise UserError(
      f"--stream: {root}: {num_classes} classes are more than {MAX_CLASSES}"
    )
  names = [BACKGROUND_NAME]
  for value, name in sorted(classes.items()):
    if not 0 <= value <= 255:
      raise UserError(f"--stream: {root}: {value} is not a grey value")
    if not (name.strip() and name.isprintable()):
      raise UserError(f"--stream: {root}: {name!r} is no name of a class")
    if name == BACKGROUND_NAME:
      lookup[value] = 0
    elif name != IGNORE_NAME:
      if name not in names:
        names.append(name)
      lookup[value] = names.index(name)
  if len(names) < 2:
    raise UserError(f"--stream: {root}: stream.json names no class")
  return tuple(names), lookup


def _common_size(paths):
  """The one size (width, height) of all images; reads their heads only."""
  size = None
  for path in paths:
    try:
      with images.opened(path) as image:
        found = image.size
    except images.UnreadableImage:
      raise UserError(f"--stream: cannot read the image {path}") from None
    if size not in (None, found):
      raise UserError(
        f"--stream: {path} has {found} pixels, those before it {size}"
      )
    size = found
  return size
