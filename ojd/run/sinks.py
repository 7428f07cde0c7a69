"""Sinks: files made of every frame's pictures, as overlay, masks and boxes.

A new sink is a class with `write(FrameImages)` and a row in `SINKS`.
"""

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ojd import labels
from ojd.formats import class_maps, palette
from ojd.formats.replacing import replacing
from ojd.run import overlay, workdir, writers
from ojd.run.overlay import FrameImages
from ojd.types import BACKGROUND

if TYPE_CHECKING:  # programs that only write files do not import jax
  from ojd.run.config import RunConfig

MIN_AREA = 0.0005  # of the frame; smaller components are not detections
_SCORE = 1.0  # of every detection; class maps have no scores
MAX_PICTURES = 12  # of one kind in a report
# Strides are multiples of eight: an odd phase avoids key frames.
_SAMPLE_PHASE = 5

Size = tuple[int, int] | None  # height and width; None: of the class maps


class Sink(Protocol):
  """Takes the frames of a run."""

  def put(self, images: FrameImages) -> None:
    """Takes the next frame."""

  def cut(self) -> Callable[[], None]:
    """Lets a resumed run continue here; returns how to wait for that."""

  def close(self) -> None:
    """Finishes the output after the last frame."""


class Place(NamedTuple):
  """The workdir and the facts that a sink needs."""

  path: pathlib.Path  # the workdir
  fps: float  # of the stream
  class_names: tuple[str, ...]  # the student's
  size: Size = None  # of masks and boxes
  start: int = 0  # the first frame; older output from it on is deleted


class Row(NamedTuple):
  """A row of the table of sinks."""

  is_wanted: Callable[["RunConfig"], bool]
  # The sink has `write(FrameImages)`, which a thread calls, and may have `cut`
  # and `close` as in `Sink`.
  make: Callable[[Place], Any]


def open_sinks(place: Place, config: "RunConfig") -> list[Sink]:
  """Opens the sinks that the config asks for, each in a thread of its own."""
  return [
    _in_a_thread(row.make(place)) for row in SINKS if row.is_wanted(config)
  ]


def _in_a_thread(sink):
  nothing = lambda: None
  cut, close = (getattr(sink, name, nothing) for name in ("cut", "close"))
  return writers.Background(sink.write, cut, close)


class OverlayVideo:
  """overlay.mp4: frame, reference and student side by side, in H.264."""

  def __init__(self, place: Place):
    self._class_names = place.class_names
    self._video = writers.PartedVideo(
      place.path / workdir.OVERLAY,
      place.path / workdir.OVERLAY_PARTS,
      writers.H264,
      place.fps,
      place.start,
    )
    self.cut, self.close = self._video.cut, self._video.close

  def write(self, images: FrameImages) -> None:
    """Adds a frame."""
    picture = overlay.paint(images, self._class_names)
    self._video.write(images.caption.t, picture)


class _Spread:
  """A dozen pictures spread over a run of unknown length.

  Every k-th picture is kept, and k doubles when there are too many. The choice
  depends on the number of pictures so far, so a resumed run keeps the same.
  """

  def __init__(
    self, folder: pathlib.Path, *, start: int, count: int, phase: int = 0
  ):
    """Makes the folder, and keeps the earlier pictures of a run that resumes.

    Args:
      folder: of the pictures; each file is named after its frame.
      start: the first frame; pictures of it and of later frames are deleted.
      count: of all pictures before `start`, kept or not.
      phase: the pictures whose number is `phase` modulo k are kept.
    """
    self._folder, self._phase = folder, phase
    folder.mkdir(parents=True, exist_ok=True)
    self._kept: dict[int, pathlib.Path] = {}  # by the number of the picture
    for path in folder.iterdir():
      index = _read_index(path)
      if index is None or not path.stem.isdecimal() or int(path.stem) >= start:
        path.unlink()
      else:
        self._kept[index] = path
    self._thin(count)

  def is_kept(self, index: int, count: int) -> bool:
    """Whether picture `index`, counted from 0, is kept out of `count`."""
    k = 1
    while len(range(self._phase % k, count, k)) > MAX_PICTURES:
      k *= 2
    return (index - self._phase) % k == 0

  def save(self, index: int, t: int, picture: Image.Image) -> None:
    """Writes picture `index`, of frame t; deletes those that are too many."""
    path = self._folder / f"{t:06d}.jpg"
    # The name has the frame, and the comment the number for thinning.
    _save(picture, path, quality=85, comment=str(index).encode())
    self._kept[index] = path
    self._thin(index + 1)

  def _thin(self, count):
    for index in list(self._kept):
      if not self.is_kept(index, count):
        self._kept.pop(index).unlink()


def _read_index(path):
  """The number of the picture in a file; None if there is none."""
  try:
    with Image.open(path) as image:
      comment = image.info.get("comment", b"")
  except OSError:
    return None
  is_number = isinstance(comment, bytes) and comment.isdigit()
  return int(comment) if is_number and len(comment) < 18 else None


class SampleFrames:
  """A dozen overlays spread over a run."""

  def __init__(self, place: Place):
    """Makes the folder, and deletes frame `start` and later."""
    self._class_names, start = place.class_names, place.start
    folder = place.path / workdir.REPORT / "frames"
    self._spread = _Spread(
      folder, start=start, count=start, phase=_SAMPLE_PHASE
    )

  def write(self, images: FrameImages) -> None:
    """Adds a frame if it is one of those to keep."""
    t = images.caption.t
    if self._spread.is_kept(t, t + 1):
      picture = Image.fromarray(overlay.paint(images, self._class_names))
      self._spread.save(t, t, picture)


class KeyPictures:
  """A dozen key frames before and after learning, spread over a run."""

  def __init__(
    self,
    path: pathlib.Path,
    class_names: tuple[str, ...],
    *,
    start: int = 0,
    num_keys: int = 0,
  ):
    """Makes the folder in the workdir, and starts the thread that writes.

    Args:
      path: the workdir.
      class_names: the student's.
      start: the first frame; pictures of it and of later frames are deleted.
      num_keys: key frames before `start`.
    """
    self._num_classes = len(class_names)
    folder = path / workdir.REPORT / "keys"
    self._spread = _Spread(folder, start=start, count=num_keys)
    self._thread = writers.Background(self._write)
    self.cut, self.close = self._thread.cut, self._thread.close

  def is_due(self, index: int) -> bool:
    """Whether key frame number `index`, counted from 0, is shown."""
    return self._spread.is_kept(index, index + 1)

  def put(self, index: int, key: overlay.KeyFrame) -> None:
    """Takes key frame number `index`, for which `is_due` is true."""
    self._thread.put((index, key))

  def _write(self, item):
    index, key = item
    picture = overlay.compose_key(key, self._num_classes)
    self._spread.save(index, key.t, picture)


def _save(image, path, **options):
  """Writes a picture completely or not at all."""
  try:
    image.save(path, **options)
  except BaseException:
    path.unlink(missing_ok=True)
    raise


class MaskFiles:
  """masks/: the student's class maps, a PNG file with a palette per frame.

  `formats.class_maps` reads these files and those of `MaskVideo`.
  """

  def __init__(self, place: Place):
    """Makes the folder, and deletes frame `start` and later."""
    self._folder, self._size = place.path / workdir.MASKS, place.size
    self._palette = palette.colors(len(place.class_names)).tobytes()
    self._folder.mkdir(parents=True, exist_ok=True)
    writers.drop_from(self._folder, place.start)
    class_maps.write_legend(place.path, _legend(place.class_names))

  def write(self, images: FrameImages) -> None:
    """Writes the file of a frame."""
    image = Image.fromarray(class_maps.resize(images.classes, self._size))
    image.putpalette(self._palette)
    _save(image, self._folder / f"{images.caption.t:06d}.png")


class MaskVideo:
  """masks.mkv: the student's class maps as one lossless video."""

  def __init__(self, place: Place):
    path, rate = place.path, class_maps.video_rate(place.fps)
    self._size = place.size
    (path / workdir.MASKS).mkdir(parents=True, exist_ok=True)
    class_maps.write_legend(path, _legend(place.class_names, rate))
    self._video = writers.PartedVideo(
      path / workdir.MASK_VIDEO,
      path / workdir.MASK_PARTS,
      writers.LABELS,
      rate,
      place.start,
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
  """boxes.jsonl during the run, and boxes.json in COCO's format at its end."""

  def __init__(self, place: Place):
    """Opens the files, and deletes frame `start` and later."""
    self._path, self._size = place.path, place.size
    categories = [
      {"id": i, "name": name}
      for i, name in enumerate(place.class_names)
      if i != BACKGROUND
    ]
    workdir.write_json(self._path / workdir.BOX_CATEGORIES, categories)
    is_kept = writers.is_before(place.start, "image_id")
    self._lines = writers.JsonLines(self._path / workdir.BOXES, is_kept)

  def write(self, images: FrameImages) -> None:
    """Adds the boxes of a frame."""
    classes = class_maps.resize(images.classes, self._size)
    self._lines.write(detections(images.caption.t, classes))

  def close(self) -> None:
    """Converts the lines to one JSON array."""
    self._lines.close()
    _make_array(self._path / workdir.BOXES, self._path / workdir.BOX_LIST)


def detections(t: int, classes: np.ndarray) -> list[dict[str, Any]]:
  """The components of a class map, as detections in COCO's format."""
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
  """Converts JSON lines to one JSON array, line by line; replaces `path`."""
  with (
    replacing(path) as beside,
    source.open() as lines,
    beside.open("w") as array,
  ):
    before = "[\n"
    for line in lines:
      array.write(before + line.rstrip("\n"))
      before = ",\n"
    array.write("\n]\n" if before != "[\n" else "[]\n")


class AreaLines:
  """areas.jsonl: the share of each class in each frame."""

  def __init__(self, place: Place):
    """Opens the file, and deletes frame `start` and later."""
    self._class_names = place.class_names
    is_kept = writers.is_before(place.start, "t")
    self._lines = writers.JsonLines(place.path / workdir.AREAS, is_kept)
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


SINKS = [
  Row(lambda config: config.overlay, OverlayVideo),
  Row(lambda config: config.overlay, SampleFrames),
  Row(lambda config: config.save_masks == "png", MaskFiles),
  Row(lambda config: config.save_masks == "video", MaskVideo),
  Row(lambda config: config.boxes, BoxFiles),
  Row(lambda config: config.areas, AreaLines),
]
