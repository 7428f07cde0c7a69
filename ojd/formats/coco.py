"""Pictures with the outlines of what is in them, as COCO's files have it.

One JSON file lists `images`, `categories` and `annotations`. What covers what
is not written down: smaller things are taken to lie over larger ones. A region
with `iscrowd` is a class map's 255 wherever no single thing is.
"""

import json
import os
import pathlib
import reprlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ojd import types
from ojd.errors import UserError
from ojd.labels import BACKGROUND_NAME
from ojd.types import BACKGROUND, IGNORE, MAX_CLASSES

_MAX_FILE_BYTES = 4 << 30
# pycocotools checks nothing. It makes room for five letters and an end a run,
# and 24 bits fit in five; for an outline it takes as much memory as it is long,
# and does not notice when there is none.
_MAX_PIXELS = (1 << 24) - 1  # of an image
_MAX_COORDINATE = 1 << 20
_MAX_OUTLINE = 1 << 20  # pixels, of all polygons of an annotation
_MAX_RUN_LETTERS = 7
# Pillow reads more, and starts other programs for some.
_IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_KINDS = {int: "a whole number", str: "text", list: "a list"}

_REPR = reprlib.Repr()  # short, and one line
_REPR.maxstring = 100


class _Thing(NamedTuple):
  """One annotation: either polygons or runs."""

  label: int  # a class, or IGNORE
  polygons: list[np.ndarray]  # [2 * N] float64: x, y, x, y, ... each
  # [N] int64, pixels outside, inside, outside, ... down one column after
  # the other
  runs: np.ndarray | None


class _Picture(NamedTuple):
  """One image, and what is in it."""

  path: pathlib.Path
  height: int
  width: int
  things: list[_Thing]


class CocoSet:
  """Pictures and their class maps; what is drawn was checked beforehand."""

  def __init__(
    self, class_names: tuple[str, ...], pictures: list[_Picture], mask_lib: Any
  ):
    self.class_names = class_names  # "background" first
    self._pictures = pictures
    self._mask_lib = mask_lib

  def __len__(self):
    return len(self._pictures)

  def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture i: [H, W, 3] uint8 RGB and its class map, [H, W] uint8."""
    picture = self._pictures[i]
    return _load_image(picture), _paint(picture, self._mask_lib)


def open_coco(
  images_dir: pathlib.Path, annotations_file: pathlib.Path
) -> CocoSet:
  """Reads and checks the annotations; images are opened when asked for.

  Classes are the categories in the order of their ids, after the background.
  """
  try:
    from pycocotools import mask as mask_lib
  except ImportError:
    raise UserError(
      "--data: COCO needs pycocotools: pip install pycocotools"
    ) from None
  if not images_dir.is_dir():
    raise UserError(f"--data: there is no folder {images_dir}")
  about = _load_json(annotations_file)
  names: dict[int, str] = {}
  pictures: dict[int, _Picture] = {}
  for key, add in (
    ("categories", lambda item: _add(names, item, _name(item, names))),
    ("images", lambda item: _add(pictures, item, _picture(item, images_dir))),
  ):
    _for_each(annotations_file, about, key, add)
    if not about[key]:
      raise UserError(f"--data: {annotations_file} has no {key}")
  ids = sorted(names)
  labels = {category: label for label, category in enumerate(ids, 1)}
  add = lambda item: _add_thing(pictures, labels, item)
  _for_each(annotations_file, about, "annotations", add)
  class_names = (BACKGROUND_NAME, *(names[category] for category in ids))
  return CocoSet(class_names, list(pictures.values()), mask_lib)


def resize_and_pad(
  image: np.ndarray, classes: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
  """Brings the longer side to `side`, then fills up a square.

  Args:
    image: [H, W, 3] uint8; bilinear, filled up with 0 below or to the right.
    classes: [H, W] uint8; nearest, filled up with IGNORE.
    side: of the square, in pixels.
  """
  types.check_frame("image", image)
  types.check_class_map("classes", classes, image)
  scale = side / max(classes.shape)
  height, width = (max(round(scale * x), 1) for x in classes.shape)
  resize = lambda x, how: Image.fromarray(x).resize((width, height), how)
  square = np.zeros((side, side, 3), np.uint8)
  square[:height, :width] = resize(image, Image.Resampling.BILINEAR)
  class_map = np.full((side, side), IGNORE, np.uint8)
  class_map[:height, :width] = resize(classes, Image.Resampling.NEAREST)
  return square, class_map


def _load_json(path):
  """The file's object, with its three lists."""
  try:
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
      raise ValueError(f"{size >> 20} MiB, more than {_MAX_FILE_BYTES >> 20}")
    with path.open("rb") as file:
      about = json.load(file)
    if not isinstance(about, dict):
      raise ValueError("it holds no object")
    for key in ("images", "annotations", "categories"):
      if not isinstance(about.get(key), list):
        raise ValueError(f"it has no list of {key}")
    if len(about["categories"]) >= MAX_CLASSES:
      raise ValueError(f"more than {MAX_CLASSES - 1} categories")
  except OSError as error:
    words = f"{path} cannot be read: {error.strerror}"
    raise UserError(f"--data: {words}") from None
  except (ValueError, RecursionError, MemoryError) as error:
    words = f"{path} is not in COCO's format ({str(error) or 'too large'})"
    raise UserError(f"--data: {words}") from None
  return about


def _for_each(path, about, key, take: Callable[[dict[str, Any]], None]):
  """Calls `take` with each item of a list; its ValueError names the item."""
  for i, item in enumerate(about[key]):
    try:
      if not isinstance(item, dict):
        raise ValueError(f"{_REPR.repr(item)} is no object")
      take(item)
    except ValueError as error:
      raise UserError(f"--data: {path}: {key}[{i}]: {error}") from None


def _field(item, key, kind):
  value = item.get(key)
  if type(value) is not kind:  # True is no number here
    raise ValueError(f"{key} is {_REPR.repr(value)}, not {_KINDS[kind]}")
  return value


def _add(table, item, value):
  number = _field(item, "id", int)
  if number in table:
    raise ValueError(f"the id {_REPR.repr(number)} is there already")
  table[number] = value


def _name(item, names):
  name = _field(item, "name", str)
  if not (name.strip() and name.isprintable()):
    raise ValueError(f"{_REPR.repr(name)} is no name of a class")
  if name == BACKGROUND_NAME or name in names.values():
    raise ValueError(f"the name {_REPR.repr(name)} is there already")
  return name


def _picture(item, images_dir):
  name = _field(item, "file_name", str)
  height, width = (_field(item, key, int) for key in ("height", "width"))
  if min(height, width) < 1 or height * width > _MAX_PIXELS:
    size = _REPR.repr((height, width))
    raise ValueError(f"height and width {size}: from 1 to {_MAX_PIXELS} pixels")
  relative = pathlib.PurePath(name)
  if relative.is_absolute() or ".." in relative.parts:
    raise ValueError(f"file_name {_REPR.repr(name)} is not in {images_dir}")
  path = images_dir / relative
  if not os.path.isfile(path):  # unlike pathlib's, refuses no text
    raise ValueError(f"there is no file {_REPR.repr(name)} in {images_dir}")
  return _Picture(path, height, width, [])


def _add_thing(pictures, labels, item):
  image, category = (
    _field(item, f"{x}_id", int) for x in ("image", "category")
  )
  if image not in pictures:
    raise ValueError(f"there is no image of id {_REPR.repr(image)}")
  if category not in labels:
    raise ValueError(f"there is no category of id {_REPR.repr(category)}")
  is_crowd = item.get("iscrowd", 0)
  if is_crowd not in (0, 1):
    raise ValueError(f"iscrowd is {_REPR.repr(is_crowd)}, not 0 or 1")
  picture, shape = pictures[image], item.get("segmentation")
  label = IGNORE if is_crowd else labels[category]
  if isinstance(shape, dict):
    thing = _Thing(label, [], _runs(shape, picture.height, picture.width))
  else:
    thing = _Thing(label, _polygons(shape), None)
  picture.things.append(thing)


def _polygons(value):
  """Lists of x, y, x, y, ... that pycocotools can be trusted with."""
  if not isinstance(value, list) or not value:
    raise ValueError("segmentation is neither polygons nor runs")
  polygons, length = [], 0
  for numbers in value:
    if not isinstance(numbers, list) or not set(map(type, numbers)) <= {
      *(int, float)
    }:
      raise ValueError("segmentation has a polygon that is no list of numbers")
    if len(numbers) < 6 or len(numbers) % 2:
      raise ValueError(
        f"segmentation has a polygon of {len(numbers)} numbers, not 6, 8, ..."
      )
    # Written so that NaN fails.
    if not all(-_MAX_COORDINATE <= x <= _MAX_COORDINATE for x in numbers):
      raise ValueError(
        f"segmentation has a coordinate beyond {_MAX_COORDINATE}, or none"
      )
    polygons.append(np.array(numbers, np.float64))
    points = polygons[-1].reshape(-1, 2)
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
    length += len(points) + float(steps.sum())
  if length > _MAX_OUTLINE:
    raise ValueError(
      f"segmentation has outlines of {length:.0f} pixels, more than "
      f"{_MAX_OUTLINE}"
    )
  return polygons


def _runs(value, height, width):
  """Run lengths, from a list or letters, that fill the picture exactly."""
  counts, size = value.get("counts"), value.get("size")
  if size != [height, width]:
    raise ValueError(
      f"segmentation has size {_REPR.repr(size)}, its image {[height, width]}"
    )
  if isinstance(counts, str):
    counts = _decompress(counts)
  elif not isinstance(counts, list) or not set(map(type, counts)) <= {int}:
    raise ValueError("segmentation has counts that are no whole numbers")
  if min(counts, default=0) < 0 or sum(counts) != height * width:
    raise ValueError(
      f"segmentation has counts that do not add up to {height * width} pixels"
    )
  return np.array(counts, np.int64)


def _decompress(text):
  """Run lengths from COCO's letters.

  A letter has five bits of a signed number, the lowest first, and one that says
  whether there are more. From the fourth number on it is what the run is longer
  than the one before the last. pycocotools would read on past the end of a text
  that breaks off.
  """
  counts: list[int] = []
  value, num_letters = 0, 0
  for letter in text:
    code = ord(letter) - 48
    if not 0 <= code < 64 or num_letters == _MAX_RUN_LETTERS:
      raise ValueError("segmentation has counts that are not COCO's letters")
    value |= (code & 31) << 5 * num_letters
    num_letters += 1
    if code & 32:
      continue
    if code & 16:
      value -= 1 << 5 * num_letters
    counts.append(value + counts[-2] if len(counts) > 2 else value)
    value, num_letters = 0, 0
  if num_letters:
    raise ValueError("segmentation has counts that break off")
  return counts


def _paint(picture, mask_lib):
  """The class map of a picture: crowds first, then large before small."""
  height, width = picture.height, picture.width
  layers = []
  for thing in picture.things:
    runs = thing.runs
    if runs is None:
      parts = mask_lib.frPyObjects(thing.polygons, height, width)
      letters = mask_lib.merge(parts)["counts"].decode("ascii")
      runs = np.array(_decompress(letters), np.int64)
    layers.append((thing.label, runs, runs[1::2].sum()))
  layers.sort(key=lambda layer: (layer[0] != IGNORE, -layer[2]))
  columns = np.full(width * height, BACKGROUND, np.uint8)
  for label, runs, _ in layers:
    columns[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = label
  return np.ascontiguousarray(columns.reshape(width, height).T)


def _load_image(picture):
  try:
    with Image.open(picture.path, formats=_IMAGE_FORMATS) as image:
      size = image.height, image.width
      if size == (picture.height, picture.width):
        return np.asarray(image.convert("RGB"))
  except Exception as error:  # Pillow has many, for files that are broken
    words = str(error).split("\n")[0]
    raise UserError(f"--data: {picture.path} cannot be read: {words}") from None
  raise UserError(
    f"--data: {picture.path} has height and width {size}, its annotations "
    f"{(picture.height, picture.width)}"
  )
