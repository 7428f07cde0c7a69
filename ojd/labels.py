"""From a teacher's answer to labels for the student; numpy, on the host.

A teacher answers with instances or with a class map over its own class names.
Here its classes are grouped into the student's, overlaps are settled, and every
pixel gets its weight in the loss.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ojd.errors import UserError
from ojd.types import BACKGROUND, IGNORE, MAX_CLASSES, Instances, Labels

MIN_SCORE = 0.5  # detections below do not count
MIN_MASK = 0.5  # nor do mask pixels
BOX_MARGIN = 0.15  # of a box's height and width, on each side
WEIGHT_INSIDE = 5.0
WEIGHT_OUTSIDE = 1.0

BACKGROUND_NAME = "background"
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


class ClassGroups(NamedTuple):
  """The student's classes and how the teacher's map onto them."""

  names: tuple[str, ...]  # the student's, "background" first
  members: tuple[tuple[str, ...], ...]  # by student class, the teacher's names
  # [256 or more] uint8, teacher's class -> student's; IGNORE stays.
  lookup: np.ndarray


def parse_groups(text: str, teacher_names: tuple[str, ...]) -> ClassGroups:
  """Reads `person;auto=car,bus,truck`; empty keeps the teacher's classes.

  Args:
    text: groups in the order of their labels, a name alone standing for itself.
    teacher_names: the teacher's classes, "background" first.
  """
  # Some teachers have class ids without a name.
  known = [name for name in teacher_names if name not in (BACKGROUND_NAME, "")]
  groups = _split_groups(text) if text.strip() else {n: [n] for n in known}
  if len(groups) + 1 > MAX_CLASSES:
    raise UserError(
      f"--classes: {len(groups)} classes and the background are more than "
      f"{MAX_CLASSES}; group some of them"
    )
  for member in itertools.chain.from_iterable(groups.values()):
    if member not in known:
      raise UserError(
        f"--classes: the teacher knows no {member!r}; it knows "
        f"{', '.join(known)}"
      )
  names = (BACKGROUND_NAME, *groups)
  members = ((), *map(tuple, groups.values()))
  return ClassGroups(names, members, _lookup(members, teacher_names))


def known_groups(
  names: tuple[str, ...], members: tuple[tuple[str, ...], ...]
) -> ClassGroups:
  """Groups of a file; not matched with a teacher's classes yet."""
  return ClassGroups(names, members, _lookup(members, ()))


def match_groups(
  groups: ClassGroups, other_names: tuple[str, ...]
) -> ClassGroups:
  """The same groups over other classes, matched by name."""
  return groups._replace(lookup=_lookup(groups.members, other_names))


def regrouped(
  groups: ClassGroups, classes: np.ndarray | None
) -> np.ndarray | None:
  """A class map over a stream's own classes as one of the groups' classes.

  None, of a frame without labels, stays None.
  """
  return None if classes is None else np.take(groups.lookup, classes)


def _lookup(members, names):
  """Class of each index into `names`; what no group holds is background."""
  lookup = np.full(max(256, len(names)), BACKGROUND, np.uint8)
  if len(names) <= IGNORE:  # else 255 is one of the names
    lookup[IGNORE] = IGNORE
  for label, group in enumerate(members):
    for member in group:
      if member in names:
        lookup[names.index(member)] = label
  return lookup


def _split_groups(text):
  """`a;b=c,d` -> {"a": ["a"], "b": ["c", "d"]}."""
  groups, owner = {}, {}
  for part in text.split(";"):
    name, equals, members = (piece.strip() for piece in part.partition("="))
    members = members.split(",") if equals else [name]
    members = [member.strip() for member in members]
    if not name or not all(members):
      raise UserError(f"--classes: cannot read {part!r} in {text!r}")
    if name in groups or name == BACKGROUND_NAME:
      raise UserError(f"--classes: {name!r} is there already")
    for member in members:
      if member in owner:
        raise UserError(
          f"--classes: {member!r} is in {owner[member]!r} and in {name!r}"
        )
      owner[member] = name
    groups[name] = members
  return groups


class Component(NamedTuple):
  """Connected pixels of one object class."""

  label: int
  box: tuple[int, int, int, int]  # y0, x0, y1, x1, ends excluded
  area: int  # pixels


def components(classes: np.ndarray) -> list[Component]:
  """The connected components of each object class; corners connect.

  Args:
    classes: [H, W] uint8.
  """
  found = []
  for label, region in enumerate(ndimage.find_objects(classes), start=1):
    if region is None or label == IGNORE:
      continue
    # Only where the class is at all: labelling is what takes the time.
    top, left = region[0].start, region[1].start
    numbers, _ = ndimage.label(classes[region] == label, _EIGHT_NEIGHBOURS)
    areas = np.bincount(numbers.ravel())[1:].tolist()
    pieces = ndimage.find_objects(numbers)
    for (rows, columns), area in zip(pieces, areas, strict=True):
      y0, x0 = top + rows.start, left + columns.start
      y1, x1 = top + rows.stop, left + columns.stop
      found.append(Component(label, (y0, x0, y1, x1), area))
  return found


def boxes_of_class_map(classes: np.ndarray) -> np.ndarray:
  """Boxes around the connected components of each object class.

  Args:
    classes: [H, W] uint8.

  Returns:
    [N, 4] int32: y0, x0, y1, x1, ends excluded.
  """
  boxes = [component.box for component in components(classes)]
  return np.array(boxes, np.int32).reshape(-1, 4)


def pixel_weights(classes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
  """Loss weights: heavy in grown boxes, 1 outside, 0 where ignored.

  Args:
    classes: [H, W] uint8.
    boxes: [N, 4] y0, x0, y1, x1 in pixels.

  Returns:
    [H, W] float32.
  """
  weights = np.full(classes.shape, WEIGHT_OUTSIDE, np.float32)
  for y0, x0, y1, x1 in boxes:
    margin_y, margin_x = BOX_MARGIN * (y1 - y0), BOX_MARGIN * (x1 - x0)
    top, left = max(int(y0 - margin_y), 0), max(int(x0 - margin_x), 0)
    bottom, right = int(np.ceil(y1 + margin_y)), int(np.ceil(x1 + margin_x))
    weights[top:bottom, left:right] = WEIGHT_INSIDE
  weights[classes == IGNORE] = 0.0
  return weights


def from_class_map(classes: np.ndarray, groups: ClassGroups) -> Labels:
  """Labels of a teacher that answers with a class map, [H, W] uint8."""
  grouped = np.take(groups.lookup, classes)
  weights = pixel_weights(grouped, boxes_of_class_map(grouped))
  return Labels(grouped, weights)


def from_instances(
  instances: Instances, groups: ClassGroups, height: int, width: int
) -> Labels:
  """Labels of a teacher that answers with instances.

  Where instances overlap the larger label wins, whatever the scores.
  """
  classes = np.full((height, width), BACKGROUND, np.uint8)
  labels = groups.lookup[np.asarray(instances.class_ids, np.intp)]
  whole = np.asarray(instances.boxes, np.float32).reshape(-1, 4)
  whole = whole.astype(np.int32)
  boxes = np.clip(whole, 0, np.array([height, width, height, width]))
  kept = (instances.scores >= MIN_SCORE) & (labels != BACKGROUND)
  kept &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
  for i in np.flatnonzero(kept):
    y0, x0, y1, x1 = boxes[i]
    mask = instances.masks[i]
    if mask.shape != (height, width):
      top, left, bottom, right = whole[i]
      mask = _resize_mask(mask, bottom - top, right - left)
      mask = mask[y0 - top : y1 - top, x0 - left : x1 - left]
    else:
      mask = mask[y0:y1, x0:x1]
    region = classes[y0:y1, x0:x1]
    # Bytes all the way: a masked maximum would be many times slower.
    np.maximum(region, (mask >= MIN_MASK) * labels[i], out=region)
  return Labels(classes, pixel_weights(classes, boxes[kept]))


def _resize_mask(mask, height, width):
  """Bilinear, pixel edges aligned, as detectors paste their soft masks.

  Two small matrix products; an index for each pixel would take longer.
  """
  mask = np.asarray(mask, np.float64)
  rows = _resize_matrix(mask.shape[0], height)
  columns = _resize_matrix(mask.shape[1], width)
  return rows @ mask @ columns.T


def _resize_matrix(size_in, size_out):
  """Weight of each input in each output, [size_out, size_in]."""
  position = (np.arange(size_out) + 0.5) * size_in / size_out - 0.5
  position = np.clip(position, 0, size_in - 1)
  low = np.minimum(position.astype(np.int32), max(size_in - 2, 0))
  high = np.minimum(low + 1, size_in - 1)
  fraction = position - low
  matrix = np.zeros((size_out, size_in))
  matrix[np.arange(size_out), low] = 1 - fraction
  matrix[np.arange(size_out), high] += fraction
  return matrix
