"""A folder of images with annotations in COCO's format, as class maps.

The annotations may be anybody's: sizes are bounded, every item is checked as it
is used, and run lengths are added up before anything is painted by them.
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ojd.errors import RequestError
from ojd.labels import BACKGROUND_NAME
from ojd.types import BACKGROUND, IGNORE, MAX_CLASSES

_MAX_BYTES = 4 << 30
_MAX_SIDE = 1 << 15


class CocoSet(NamedTuple):
  """Images and what is where in them."""

  folder: pathlib.Path
  class_names: tuple[str, ...]  # "background" first, then by category id
  images: tuple[dict[str, Any], ...]
  annotations: dict[int, list[dict[str, Any]]]  # by image id
  labels: dict[int, int]  # category id -> class

  def __len__(self) -> int:
    return len(self.images)

  def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Image i, [H, W, 3] uint8, and its class map [H, W] uint8."""
    about = self.images[i]
    frame = _read_image(self.folder / about["file_name"], about)
    parts = self.annotations.get(about["id"], [])
    return frame, paint(parts, self.labels, *frame.shape[:2])


def open_coco(folder: pathlib.Path, annotations: pathlib.Path) -> CocoSet:
  """Reads the annotations of a folder of images.

  Args:
    folder: of the images.
    annotations: the JSON file, as `instances_train2017.json`.
  """
  content = _read_json(annotations)
  where = f"--data: {annotations}"
  for key in ("images", "annotations", "categories"):
    if not _is_list_of_dicts(content.get(key)):
      raise RequestError(f"{where}: {key!r} is no list of objects")
  categories = {}
  for item in content["categories"]:
    _require(_is_id(item.get("id")), where, "category", item)
    _require(isinstance(item.get("name"), str), where, "category", item)
    categories[item["id"]] = item["name"]
  if not 1 <= len(categories) < MAX_CLASSES:
    raise RequestError(
      f"{where}: {len(categories)} categories; from 1 to {MAX_CLASSES - 1}"
    )
  images = {}
  for item in content["images"]:
    _require(_is_image(item), where, "image", item)
    images[item["id"]] = item
  if not images:
    raise RequestError(f"{where}: holds no image")
  by_image: dict[int, list] = {}
  for item in content["annotations"]:
    fits = _is_id(item.get("image_id")) and item["image_id"] in images
    fits = fits and _is_id(item.get("category_id"))
    fits = fits and item["category_id"] in categories
    _require(fits, where, "annotation", item)
    by_image.setdefault(item["image_id"], []).append(item)
  order = sorted(categories)
  if not folder.is_dir():
    raise RequestError(f"--data: {folder} is no folder of images")
  return CocoSet(
    folder,
    (BACKGROUND_NAME, *(categories[i] for i in order)),
    tuple(images.values()),
    by_image,
    {category: 1 + i for i, category in enumerate(order)},
  )


def paint(
  annotations: list[dict[str, Any]],
  labels: dict[int, int],
  height: int,
  width: int,
) -> np.ndarray:
  """The class map of an image's annotations, the smallest things on top.

  Crowds, which nobody told apart, are ignored where nothing else is.
  """
  classes = np.full((height, width), BACKGROUND, np.uint8)
  masks = [(a, _mask(a, height, width)) for a in annotations]
  things = [(a, mask) for a, mask in masks if not a.get("iscrowd")]
  for annotation, mask in masks:
    if annotation.get("iscrowd"):
      classes[mask] = IGNORE
  for annotation, mask in sorted(things, key=lambda pair: -pair[1].sum()):
    classes[mask] = labels[annotation["category_id"]]
  return classes


def resize_and_pad(
  image: np.ndarray, classes: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
  """The long side becomes `side`; the rest of the square is ignored."""
  height, width = classes.shape
  scale = side / max(height, width)
  size = max(1, round(width * scale)), max(1, round(height * scale))
  small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
  labels = Image.fromarray(classes).resize(size, Image.Resampling.NEAREST)
  padded = np.zeros((side, side, 3), np.uint8)
  padded_classes = np.full((side, side), IGNORE, np.uint8)
  padded[: size[1], : size[0]] = np.asarray(small)
  padded_classes[: size[1], : size[0]] = np.asarray(labels)
  return padded, padded_classes


def _mask(annotation, height, width):
  """Pixels of an annotation, [H, W] bool."""
  segmentation = annotation.get("segmentation")
  try:
    if isinstance(segmentation, dict):
      return _from_runs(segmentation, height, width)
    return _from_polygons(segmentation, height, width)
  except (ValueError, TypeError, KeyError) as error:
    raise RequestError(
      f"--data: annotation {str(annotation.get('id'))[:20]}: {error}"
    ) from None


def _from_runs(segmentation, height, width):
  """Run lengths of off and on in turn, down the columns."""
  if list(segmentation["size"]) != [height, width]:
    raise ValueError(f"its size is not that of the image, {height}x{width}")
  counts = segmentation["counts"]
  if isinstance(counts, str):
    counts = _decode_counts(counts)
  counts = np.asarray(counts)
  if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
    raise ValueError("its counts are no list of whole numbers")
  is_sane = (counts >= 0).all() and (counts <= height * width).all()
  if not is_sane or counts.sum() != height * width:
    raise ValueError("its counts do not add up to the image")
  is_on = np.arange(len(counts)) % 2 == 1
  return np.repeat(is_on, counts).reshape(width, height).T


def _decode_counts(text):
  """COCO's compressed counts: five bits a character, as differences.

  Written out here because the library's own decoder trusts what it reads.
  """
  counts, value, shift = [], 0, 0
  for character in text:
    code = ord(character) - 48
    if not 0 <= code < 64:
      raise ValueError("its counts hold a character that cannot be there")
    value |= (code & 31) << shift
    shift += 5
    if shift > 60:
      raise ValueError("one of its counts is too large")
    if code & 32:
      continue
    if code & 16:
      value -= 1 << shift
    # From the third on, a difference to the one before the last.
    counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    value, shift = 0, 0
  if shift:
    raise ValueError("its counts break off")
  return np.array(counts, np.int64)


def _from_polygons(polygons, height, width):
  """Everything inside any of the polygons."""
  try:
    from pycocotools import mask as coco_mask
  except ImportError:
    raise RequestError(
      "--data: polygons need pycocotools: pip install pycocotools"
    ) from None
  if not isinstance(polygons, list) or not polygons:
    raise ValueError("its segmentation is neither polygons nor run lengths")
  mask = np.zeros((height, width), bool)
  for polygon in polygons:
    points = np.asarray(polygon, np.float64)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
      raise ValueError("a polygon is three or more pairs of numbers")
    if not np.isfinite(points).all():
      raise ValueError("a polygon is not finite")
    points = np.clip(points.reshape(-1, 2), 0, (width, height))
    (runs,) = coco_mask.frPyObjects([points.ravel().tolist()], height, width)
    mask |= _from_runs(
      runs | {"counts": runs["counts"].decode()}, height, width
    )
  return mask


def _read_json(path):
  try:
    if path.stat().st_size > _MAX_BYTES:
      raise RequestError(f"--data: {path} is larger than 4 GiB")
    content = json.loads(path.read_bytes())
  except OSError as error:
    raise RequestError(f"--data: {path}: {error.strerror}") from None
  except (ValueError, RecursionError):
    raise RequestError(f"--data: {path} is no JSON") from None
  if not isinstance(content, dict):
    raise RequestError(f"--data: {path} holds no annotations")
  return content


def _read_image(path, about):
  try:
    with Image.open(path) as image:
      size = about["width"], about["height"]
      if image.size != size:
        raise RequestError(
          f"--data: {path} is {image.size[1]}x{image.size[0]}, not "
          f"{size[1]}x{size[0]} as its annotations say"
        )
      return np.asarray(image.convert("RGB"))
  except (OSError, Image.DecompressionBombError, SyntaxError) as error:
    raise RequestError(f"--data: {path} cannot be read: {error}") from None


def _is_list_of_dicts(value):
  return isinstance(value, list) and all(isinstance(x, dict) for x in value)


def _is_id(value):
  return isinstance(value, int) and not isinstance(value, bool)


def _is_image(item):
  """Whether an image's entry has a size and stays inside the folder."""
  name = item.get("file_name")
  if not isinstance(name, str) or not name or "\0" in name:
    return False
  path = pathlib.PurePosixPath(name)
  sides = item.get("height"), item.get("width")
  has_size = all(_is_id(side) and 0 < side <= _MAX_SIDE for side in sides)
  inside = not path.is_absolute() and ".." not in path.parts
  return _is_id(item.get("id")) and has_size and inside


def _require(is_good, where, kind, item):
  if not is_good:
    raise RequestError(f"{where}: a bad {kind}: {json.dumps(item)[:100]}")
