"""Pictures of key frames before and after learning.

A dozen of them are spread over a run whose length is not known: every k-th is
kept, from the first on, and k doubles when there are too many. Which are kept
follows from the number of key frames alone, so a resumed run has the same.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ojd.run import overlay, writers
from ojd.types import StepInfo

MAX_PICTURES = 12
_MAX_WIDTH = 1600  # of a picture


class KeyRecord(NamedTuple):
  """A key frame, and the answers before and after learning."""

  t: int  # the frame at which the system learns
  frame_t: int  # the frame that the labels are of: t, where the stream waits
  frame: np.ndarray  # [H, W, 3] uint8
  labels: np.ndarray  # [H, W] uint8, of the teacher
  before: np.ndarray  # [H, W] uint8, the student's classes before the update
  after: np.ndarray  # [H, W] uint8
  info: StepInfo  # plain numbers


class Gallery:
  """The pictures of a run, written in a thread of their own."""

  def __init__(
    self,
    folder: pathlib.Path,
    class_names: tuple[str, ...],
    *,
    start: int = 0,
    num_keys: int = 0,
  ):
    """Makes the folder; of a run that resumes, keeps the earlier pictures.

    Args:
      folder: of the pictures, named after their `t`.
      class_names: the student's.
      start: the first frame; what is there of it and later is deleted.
      num_keys: key frames before it.
    """
    self._folder, self._num_classes = folder, len(class_names)
    folder.mkdir(parents=True, exist_ok=True)
    self._kept: dict[int, pathlib.Path] = {}  # by the number of the key frame
    for path in folder.iterdir():
      index = _read_index(path)
      if index is None or not path.stem.isdecimal() or int(path.stem) >= start:
        path.unlink()
      else:
        self._kept[index] = path
    self._thin(num_keys)
    self._thread = writers.Background(self._write)

  def is_due(self, index: int) -> bool:
    """Whether key frame number `index`, from 0 on, is shown."""
    return index % step(index + 1) == 0

  def put(self, index: int, record: KeyRecord) -> None:
    """Takes key frame number `index`, which is due."""
    self._thread.put((index, record))

  def _write(self, item):
    index, record = item
    path = self._folder / f"{record.t:06d}.jpg"
    picture = compose(record, self._num_classes)
    # Its name holds the frame; thinning needs the number of the key frame.
    picture.save(path, quality=85, comment=str(index).encode())
    self._kept[index] = path
    self._thin(index + 1)

  def _thin(self, num_keys):
    k = step(num_keys)
    for index in [index for index in self._kept if index % k]:
      self._kept.pop(index).unlink()

  def cut(self):
    """Lets a resumed run continue here; returns how to wait for that."""
    return self._thread.cut()

  def close(self) -> None:
    """Waits until all is written."""
    self._thread.close()


def step(num_keys: int) -> int:
  """Of so many key frames every k-th is shown; k is a power of two."""
  k = 1
  while -(-num_keys // k) > MAX_PICTURES:
    k *= 2
  return k


def _read_index(path):
  """The number of the key frame in a picture's file; None without any."""
  try:
    with Image.open(path) as image:
      comment = image.info.get("comment", b"")
  except OSError:
    return None
  is_number = isinstance(comment, bytes) and comment.isdigit()
  return int(comment) if is_number and len(comment) < 18 else None


def compose(record: KeyRecord, num_classes: int) -> Image.Image:
  """Frame, labels, the student before and after, two by two."""
  height, width = record.labels.shape
  size = overlay.font_size(height, width)
  gap, strip = max(2, size // 4), round(1.5 * size)
  frame = Image.fromarray(record.frame)
  panels = [frame] + [
    overlay.paint_classes(frame, classes, num_classes)
    for classes in (record.labels, record.before, record.after)
  ]
  whole = (2 * width + 3 * gap, 2 * (strip + height) + 2 * gap)
  picture = Image.new("RGB", whole, overlay.PAPER)
  draw, font = ImageDraw.Draw(picture), overlay.get_font(size)
  for i, titles in enumerate(_titles(record)):
    left = gap + i % 2 * (width + gap)
    top = strip + i // 2 * (height + strip + gap)
    picture.paste(panels[i], (left, top))
    text = overlay.fit_text(titles, width - size // 3, size)
    middle = (left + size // 3, top - strip / 2)
    draw.text(middle, text, overlay.INK, font, anchor="lm")
  if picture.width > _MAX_WIDTH:
    scaled = round(picture.height * _MAX_WIDTH / picture.width)
    return picture.resize((_MAX_WIDTH, max(1, scaled)))
  return picture


def _titles(record):
  """The words of each panel, and shorter ones for less room."""
  info, late = record.info, record.t - record.frame_t
  before, after = f"{info.miou_before:.3f}", f"{info.miou_after:.3f}"
  updates = f"{info.num_updates} update{'' if info.num_updates == 1 else 's'}"
  teacher = f"teacher, {late} frames late" if late else "teacher"
  return (
    (f"frame {record.frame_t}", str(record.frame_t)),
    (teacher, "teacher"),
    (f"student before   {before}", f"before {before}", "before"),
    (f"student after {updates}   {after}", f"after {after}", "after"),
  )
