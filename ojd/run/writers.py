"""What a run writes frame by frame; what is slow, in a thread of its own."""

import pathlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ojd.run import lines, overlay, videos, workdir

_QUEUE_LENGTH = 8  # then the stream waits: memory stays bounded
_MAX_SAMPLES = 12  # sample frames that a report shows at most
_SAMPLE_PHASE = 5
_MAX_SIDE = 4096  # of an overlay; H.264 levels end there


class FrameRecord(NamedTuple):
  """What writers get of a frame."""

  t: int
  frame: np.ndarray  # [H, W, 3] uint8
  reference: np.ndarray | None  # [H, W] uint8: truth, or the teacher's latest
  classes: np.ndarray  # [H, W] uint8, the student's
  caption: overlay.Caption


class MetricsWriter:
  """Appends one JSON line a frame; each line reaches the file at once."""

  def __init__(self, path: pathlib.Path, num_lines: int = 0):
    """Opens the file and cuts off what is beyond its first lines."""
    self._lines = lines.JsonLines(path, lambda index, _: index < num_lines)

  def write(self, metrics: dict[str, Any]) -> None:
    self._lines.write([metrics])

  def close(self) -> None:
    self._lines.close()


class Sink(Protocol):
  """Takes the frames of a run."""

  def put(self, record: FrameRecord) -> None:
    """Takes the next frame."""

  def cut(self) -> Callable[[], None]:
    """Ends here what may be gone on from here; returns how to wait for it."""

  def close(self) -> None:
    """The frames are over."""


class Background:
  """Calls `write` in a thread, in order; an error there is raised here."""

  def __init__(
    self,
    write: Callable[[Any], None],
    cut: Callable[[], None] = lambda: None,
    close: Callable[[], None] = lambda: None,
  ):
    self._write, self._cut, self._close = write, cut, close
    self._queue: queue.Queue = queue.Queue(_QUEUE_LENGTH)
    self._error: Exception | None = None
    self._thread = threading.Thread(target=self._drain, daemon=True)
    self._thread.start()

  def _drain(self):
    while (item := self._queue.get()) is not None:
      is_cut = isinstance(item, threading.Event)
      try:
        if self._error is None:
          self._cut() if is_cut else self._write(item)
      except Exception as error:
        self._error = error
      if is_cut:
        item.set()

  def put(self, record: Any) -> None:
    """Hands a record over; waits while the thread is far behind."""
    if self._error is not None:
      raise self._error
    self._queue.put(record)

  def cut(self) -> Callable[[], None]:
    """Ends here what may be gone on from here; returns how to wait for it."""
    done = threading.Event()
    self._queue.put(done)

    def wait():
      done.wait()
      if self._error is not None:
        raise self._error

    return wait

  def close(self) -> None:
    """Waits until all is written."""
    self._queue.put(None)
    self._thread.join()
    try:
      self._close()
    finally:
      # Before one of closing, of which it is the cause.
      if self._error is not None:
        raise self._error


class OverlayVideo:
  """Frame, reference and student side by side, as H.264 for any browser."""

  def __init__(
    self, path: pathlib.Path, fps: float, class_names, start: int = 0
  ):
    self._class_names = class_names
    self._video = videos.PartedVideo(
      path / workdir.OVERLAY,
      path / workdir.OVERLAY_PARTS,
      videos.H264,
      fps,
      start,
    )
    self.cut, self.close = self._video.cut, self._video.close

  def write(self, record: FrameRecord) -> None:
    self._video.write(record.t, paint(record, self._class_names))


class SampleFrames:
  """A dozen overlays spread over a run whose length nobody knows.

  Keeps every k-th; when there are too many, k doubles and every other one goes.
  """

  def __init__(self, folder: pathlib.Path, class_names, start: int = 0):
    self._folder, self._class_names = folder, class_names
    folder.mkdir(parents=True, exist_ok=True)
    videos.drop_from(folder, start)
    self._every = 1
    self._kept = sorted((int(p.stem), p) for p in folder.iterdir())
    # The same that the first frames would have led to.
    while sum(not self._is_left_out(t) for t in range(start)) > _MAX_SAMPLES:
      self._every *= 2
    self._thin()

  def write(self, record: FrameRecord) -> None:
    if self._is_left_out(record.t):
      return
    path = self._folder / f"{record.t:06d}.jpg"
    picture = Image.fromarray(paint(record, self._class_names))
    save(picture, path, quality=85)
    self._kept.append((record.t, path))
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


def save(image: Image.Image, path: pathlib.Path, **options) -> None:
  """Writes a picture whole or not at all."""
  try:
    image.save(path, **options)
  except BaseException:
    path.unlink(missing_ok=True)
    raise


def paint(record: FrameRecord, class_names) -> np.ndarray:
  """The overlay picture of a record, no larger than players can show."""
  picture = overlay.compose(
    record.frame,
    record.reference,
    record.classes,
    class_names=class_names,
    caption=record.caption,
  )
  scale = _MAX_SIDE / max(picture.shape[:2])
  if scale >= 1:
    return picture
  height, width = (max(2, int(x * scale) // 2 * 2) for x in picture.shape[:2])
  return np.asarray(Image.fromarray(picture).resize((width, height)))
