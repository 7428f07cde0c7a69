"""What a run writes frame by frame; what is slow, in a thread of its own."""

import json
import pathlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import imageio.v3 as iio
import numpy as np
from PIL import Image

from ojd.run import overlay, palette, workdir

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

  def __init__(self, path: pathlib.Path):
    self._file = path.open("w", buffering=1)

  def write(self, metrics: dict[str, Any]) -> None:
    self._file.write(json.dumps(metrics) + "\n")

  def close(self) -> None:
    self._file.close()


class Background:
  """Calls `write` in a thread, in order; an error there is raised here."""

  def __init__(
    self,
    write: Callable[[FrameRecord], None],
    close: Callable[[], None] = lambda: None,
  ):
    self._write, self._close = write, close
    self._queue: queue.Queue = queue.Queue(_QUEUE_LENGTH)
    self._error: Exception | None = None
    self._thread = threading.Thread(target=self._drain, daemon=True)
    self._thread.start()

  def _drain(self):
    while (record := self._queue.get()) is not None:
      if self._error is None:
        try:
          self._write(record)
        except Exception as error:
          self._error = error

  def put(self, record: FrameRecord) -> None:
    """Hands a record over; waits while the thread is far behind."""
    if self._error is not None:
      raise self._error
    self._queue.put(record)

  def close(self) -> None:
    """Waits until all is written."""
    self._queue.put(None)
    self._thread.join()
    self._close()
    if self._error is not None:
      raise self._error


class OverlayVideo:
  """Frame, reference and student side by side, as H.264 for any browser."""

  def __init__(self, path: pathlib.Path, fps: float, class_names):
    self._path, self._class_names = path, class_names
    self._fps = fps
    self._file = None

  def write(self, record: FrameRecord) -> None:
    if self._file is None:
      self._file = iio.imopen(self._path, "w", plugin="pyav")
      self._file.init_video_stream(
        "libx264", fps=self._fps, pixel_format="yuv420p"
      )
    self._file.write_frame(paint(record, self._class_names))

  def close(self) -> None:
    # Let go first: a file that failed to close tries once more at exit.
    file, self._file = self._file, None
    if file is not None:
      file.close()


class SampleFrames:
  """A dozen overlays spread over a run whose length nobody knows.

  Keeps every k-th; when there are too many, k doubles and every other one goes.
  """

  def __init__(self, folder: pathlib.Path, class_names):
    self._folder, self._class_names = folder, class_names
    self._every, self._kept = 1, []
    folder.mkdir(parents=True)

  def write(self, record: FrameRecord) -> None:
    if self._is_left_out(record.t):
      return
    path = self._folder / f"{record.t:06d}.jpg"
    Image.fromarray(paint(record, self._class_names)).save(path, quality=85)
    self._kept.append((record.t, path))
    while len(self._kept) > _MAX_SAMPLES:
      self._every *= 2
      for t, old in self._kept:
        if self._is_left_out(t):
          old.unlink()
      self._kept = [x for x in self._kept if not self._is_left_out(x[0])]

  def _is_left_out(self, t):
    # Strides are multiples of eight: an odd phase shows other than key frames.
    return (t - _SAMPLE_PHASE) % self._every != 0


class MaskFiles:
  """The student's class maps as PNG files with a palette, one a frame."""

  def __init__(self, folder: pathlib.Path, class_names):
    self._folder = folder
    self._palette = palette.colors(len(class_names)).tobytes()
    folder.mkdir(parents=True)

  def write(self, record: FrameRecord) -> None:
    image = Image.fromarray(record.classes)
    image.putpalette(self._palette)
    image.save(self._folder / f"{record.t:06d}.png")


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


def open_sinks(
  path: pathlib.Path, fps: float, class_names, *, video: bool, masks: bool
) -> list[Background]:
  """The pictures that a run was asked for, each written in its own thread."""
  sinks = []
  if video:
    overlays = OverlayVideo(path / workdir.OVERLAY, fps, class_names)
    samples = SampleFrames(path / workdir.REPORT / "frames", class_names)
    sinks.append(Background(overlays.write, overlays.close))
    sinks.append(Background(samples.write))
  if masks:
    files = MaskFiles(path / workdir.MASKS, class_names)
    sinks.append(Background(files.write))
  return sinks
