"""What can be counted in the student's class maps: boxes and areas."""

import os
import pathlib
from typing import Any

import numpy as np

from ojd import labels
from ojd.formats import class_maps
from ojd.run import lines, workdir
from ojd.run.writers import FrameRecord
from ojd.types import BACKGROUND

MIN_AREA = 0.0005  # of the frame; a smaller component is no detection
_SCORE = 1.0  # a class map knows no other


def detections(t: int, classes: np.ndarray) -> list[dict[str, Any]]:
  """The components of a class map as COCO writes detections."""
  found = []
  for label, (y0, x0, y1, x1), area in labels.components(classes):
    if area >= MIN_AREA * classes.size:
      box = [x0, y0, x1 - x0, y1 - y0]
      found.append(
        {
          **{"image_id": t, "category_id": label, "bbox": box},
          **{"score": _SCORE, "area": area},
        }
      )
  return found


def areas(classes: np.ndarray, class_names) -> dict[str, float]:
  """The share of each class in a class map."""
  counts = np.bincount(classes.ravel(), minlength=len(class_names))
  return {
    name: round(int(count) / classes.size, 6)
    for name, count in zip(class_names, counts, strict=False)
  }


class BoxFiles:
  """boxes.jsonl while the run goes on, and boxes.json, COCO's, in the end."""

  def __init__(
    self,
    path: pathlib.Path,
    class_names,
    size: tuple[int, int] | None,
    start: int = 0,
  ):
    """Opens the files in a workdir, and drops frame `start` and later.

    Args:
      path: the workdir.
      class_names: the student's.
      size: height and width that boxes are of; None: of the class maps.
      start: the first frame that will be written.
    """
    self._path, self._size = path, size
    categories = [
      {"id": i, "name": name}
      for i, name in enumerate(class_names)
      if i != BACKGROUND
    ]
    workdir.write_json(path / workdir.BOX_CATEGORIES, categories)
    is_kept = lines.is_before(start, "image_id")
    self._lines = lines.JsonLines(path / workdir.BOXES, is_kept)

  def write(self, record: FrameRecord) -> None:
    classes = class_maps.resize(record.classes, self._size)
    self._lines.write(detections(record.t, classes))

  def close(self) -> None:
    """Makes one array of the lines."""
    self._lines.close()
    make_array(self._path / workdir.BOXES, self._path / workdir.BOX_LIST)


def make_array(source: pathlib.Path, path: pathlib.Path) -> None:
  """Writes JSON lines as one JSON array, a line at a time, in one step."""
  beside = path.with_name(path.name + ".part")
  try:
    with source.open() as lines_, beside.open("w") as array:
      before = "[\n"
      for line in lines_:
        array.write(before + line.rstrip("\n"))
        before = ",\n"
      array.write("\n]\n" if before != "[\n" else "[]\n")
    os.replace(beside, path)
  except OSError:
    beside.unlink(missing_ok=True)
    raise


class AreaLines:
  """areas.jsonl: how much of each frame is of which class."""

  def __init__(self, path: pathlib.Path, class_names, start: int = 0):
    """Opens the file in a workdir, and drops frame `start` and later."""
    self._class_names = class_names
    is_kept = lines.is_before(start, "t")
    self._lines = lines.JsonLines(path / workdir.AREAS, is_kept)

  def write(self, record: FrameRecord) -> None:
    line = {
      "t": record.t,
      "seconds": round(record.caption.seconds, 6),
      "areas": areas(record.classes, self._class_names),
    }
    self._lines.write([line])

  def close(self) -> None:
    """Lets the file go."""
    self._lines.close()
