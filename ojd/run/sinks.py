"""What a run writes of each frame's pictures: overlays, masks, boxes, areas.

A sink is added by a class with `write(FrameImages)` and a line in `open_sinks`.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ojd import labels
from ojd.formats import class_maps
from ojd.run import overlay, palette, workdir, writers
from ojd.run.overlay import FrameImages
from ojd.types import BACKGROUND

MIN_AREA = 0.0005  # of the frame; a smaller component is no detection
_SCORE = 1.0  # of a detection; a class map knows no other
_MAX_SAMPLES = 12  # sample frames that a report shows at most
_SAMPLE_PHASE = 5

Size = tuple[int, int] | None  # height and width; None: of the class maps


class Sink(Protocol):
  """Takes the frames of a run."""

  def put(self, images: FrameImages) -> None:
    """Takes the next frame."""

  def cut(self) -> Callable[[], None]:
    """Lets a resumed run continue here; returns how to wait for that."""

  def close(self) -> None:
    """Ends the stream of frames."""


def open_sinks(
  path: pathlib.Path,
  fps: float,
  class_names: tuple[str, ...],
  *,
  video: bool = False,
  masks: str = "none",
  boxes: bool = False,
  areas: bool = False,
  size: Size = None,
  start: int = 0,
) -> list[Sink]:
  """Opens the files that a run is asked for, each with a thread of its own.

  Args:
    path: the workdir.
    fps: of the stream.
    class_names: the student's.
    video: write overlays.
    masks: how class maps are written: "png", "video" or "none".
    boxes: write boxes around connected regions.
    areas: write the share of each class.
    size: of masks and boxes.
    start: the first frame; what is there of it and later is deleted.
  """
  sinks = []

  def add(sink):
    nothing = lambda: None
    cut, close = (getattr(sink, x, nothing) for x in ("cut", "close"))
    sinks.append(writers.Background(sink.write, cut, close))

  if video:
    add(OverlayVideo(path, fps, class_names, start))
    add(SampleFrames(path / workdir.REPORT / "frames", class_names, start))
  if masks == "png":
    add(MaskFiles(path, class_names, size, start))
  elif masks == "video":
    add(MaskVideo(path, fps, class_names, size, start))
  if boxes:
    add(BoxFiles(path, class_names, size, start))
  if areas:
    add(AreaLines(path, class_names, start))
  return sinks


class OverlayVideo:
  """Frame, reference and student side by side, as H.264 for any browser."""

  def __init__(
    self, path: pathlib.Path, fps: float, class_names, start: int = 0
  ):
    self._class_names = class_names
    self._video = writers.PartedVideo(
      path / workdir.OVERLAY,
      path / workdir.OVERLAY_PARTS,
      writers.H264,
      fps,
      start,
    )
    self.cut, self.close = self._video.cut, self._video.close

  def write(self, images: FrameImages) -> None:
    """Adds a frame."""
    picture = overlay.paint(images, self._class_names)
    self._video.write(images.caption.t, picture)


class SampleFrames:
  """A dozen overlays spread over a run whose length is not known.

  Keeps every k-th; when there are too many, k doubles and every other one goes.
  """

  def __init__(self, folder: pathlib.Path, class_names, start: int = 0):
    self._folder, self._class_names = folder, class_names
    folder.mkdir(parents=True, exist_ok=True)
    writers.drop_from(folder, start)
    self._every = 1
    self._kept = sorted((int(p.stem), p) for p in folder.iterdir())
    # The same that the first frames would have led to.
    while sum(not self._is_left_out(t) for t in range(start)) > _MAX_SAMPLES:
      self._every *= 2
    self._thin()

  def write(self, images: FrameImages) -> None:
    """Adds a frame, if it is one of those that are kept."""
    t = images.caption.t
    if self._is_left_out(t):
      return
    path = self._folder / f"{t:06d}.jpg"
    picture = Image.fromarray(overlay.paint(images, self._class_names))
    _save(picture, path, quality=85)
    self._kept.append((t, path))
    while len(self._kept) > _MAX_SAMPLES:
      self._every *= 2
      self._thin()

  def _thin(self):
    for t, old in self._kept:
      if self._is_left_out(t):
        old.unlink()
    self._kept = [x for x in self._kept if not self._is_left_out(x[0])]

  def _is_left_out(self, t):
    # Strides are multiples of eight: an odd phase shows other than key frames.
    return (t - _SAMPLE_PHASE) % self._every != 0


def _save(image, path, **options):
  """Writes a picture whole or not at all."""
  try:
    image.save(path, **options)
  except BaseException:
    path.unlink(missing_ok=True)
    raise


class MaskFiles:
  """The student's class maps as PNG files with a palette, one a frame.

  `formats.class_maps` reads them, and those of `MaskVideo`.
  """

  def __init__(
    self,
    path: pathlib.Path,
    class_names,
    size: Size = None,
    start: int = 0,
  ):
    """Makes the folder in a workdir, and drops frame `start` and later."""
    self._folder, self._size = path / workdir.MASKS, size
    self._palette = palette.colors(len(class_names)).tobytes()
    self._folder.mkdir(parents=True, exist_ok=True)
    writers.drop_from(self._folder, start)
    class_maps.write_legend(path, _legend(class_names))

  def write(self, images: FrameImages) -> None:
    """Writes the file of a frame."""
    image = Image.fromarray(class_maps.resize(images.classes, self._size))
    image.putpalette(self._palette)
    _save(image, self._folder / f"{images.caption.t:06d}.png")


class MaskVideo:
  """The student's class maps as one lossless video."""

  def __init__(
    self,
    path: pathlib.Path,
    fps: float,
    class_names,
    size: Size = None,
    start: int = 0,
  ):
    self._size, rate = size, class_maps.video_rate(fps)
    (path / workdir.MASKS).mkdir(parents=True, exist_ok=True)
    class_maps.write_legend(path, _legend(class_names, rate))
    self._video = writers.PartedVideo(
      path / workdir.MASK_VIDEO,
      path / workdir.MASK_PARTS,
      writers.LABELS,
      rate,
      start,
    )
    self.cut, self.close = self._video.cut, self._video.close

  def write(self, images: FrameImages) -> None:
    """Adds a frame."""
    classes = class_maps.resize(images.classes, self._size)
    self._video.write(images.caption.t, classes)


def _legend(class_names, fps=0.0):
  colors = palette.colors(len(class_names)).tolist()
  return class_maps.Legend(tuple(class_names), tuple(map(tuple, colors)), fps)


class BoxFiles:
  """boxes.jsonl while the run goes on, and boxes.json, COCO's, at its end."""

  def __init__(
    self, path: pathlib.Path, class_names, size: Size, start: int = 0
  ):
    """Opens the files in a workdir, and drops frame `start` and later."""
    self._path, self._size = path, size
    categories = [
      {"id": i, "name": name}
      for i, name in enumerate(class_names)
      if i != BACKGROUND
    ]
    workdir.write_json(path / workdir.BOX_CATEGORIES, categories)
    is_kept = writers.is_before(start, "image_id")
    self._lines = writers.JsonLines(path / workdir.BOXES, is_kept)

  def write(self, images: FrameImages) -> None:
    """Adds the boxes of a frame."""
    classes = class_maps.resize(images.classes, self._size)
    self._lines.write(detections(images.caption.t, classes))

  def close(self) -> None:
    """Makes one array of the lines."""
    self._lines.close()
    _make_array(self._path / workdir.BOXES, self._path / workdir.BOX_LIST)


def detections(t: int, classes: np.ndarray) -> list[dict[str, Any]]:
  """The components of a class map in COCO's format of detections."""
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


def _make_array(source, path):
  """Writes JSON lines as one JSON array, a line at a time, in one step."""
  beside = path.with_name(path.name + ".part")
  try:
    with source.open() as lines, beside.open("w") as array:
      before = "[\n"
      for line in lines:
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
    is_kept = writers.is_before(start, "t")
    self._lines = writers.JsonLines(path / workdir.AREAS, is_kept)
    self.close = self._lines.close

  def write(self, images: FrameImages) -> None:
    """Adds the line of a frame."""
    classes, names = images.classes, self._class_names
    counts = np.bincount(classes.ravel(), minlength=len(names))
    line = {
      "t": images.caption.t,
      "seconds": round(images.caption.seconds, 6),
      "areas": {
        name: round(int(count) / classes.size, 6)
        for name, count in zip(names, counts, strict=False)
      },
    }
    self._lines.write([line])
