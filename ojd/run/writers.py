"""What a run writes frame by frame; what is slow, in a thread of its own."""

import json
import os
import pathlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import av
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

  def __init__(self, path: pathlib.Path, num_lines: int = 0):
    """Opens the file and cuts off what is beyond its first lines."""
    with path.open("ab+") as file:
      file.seek(0)
      for _ in range(num_lines):
        file.readline()
      file.truncate(file.tell())
    self._file = path.open("a", buffering=1)

  def write(self, metrics: dict[str, Any]) -> None:
    self._file.write(json.dumps(metrics) + "\n")

  def close(self) -> None:
    self._file.close()


class Background:
  """Calls `write` in a thread, in order; an error there is raised here."""

  def __init__(
    self,
    write: Callable[[FrameRecord], None],
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

  def put(self, record: FrameRecord) -> None:
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
    self._close()
    if self._error is not None:
      raise self._error


class OverlayVideo:
  """Frame, reference and student side by side, as H.264 for any browser.

  Written in parts, since a video that breaks off cannot be gone on with.
  """

  def __init__(
    self, path: pathlib.Path, fps: float, class_names, start: int = 0
  ):
    self._path, self._class_names = path / workdir.OVERLAY, class_names
    self._parts = path / workdir.OVERLAY_PARTS
    self._fps = fps
    self._file = None
    self._parts.mkdir(exist_ok=True)
    _drop_from(self._parts, start)

  def write(self, record: FrameRecord) -> None:
    if self._file is None:
      part = self._parts / f"{record.t:06d}.mp4"
      self._file = iio.imopen(part, "w", plugin="pyav")
      self._file.init_video_stream(
        "libx264", fps=self._fps, pixel_format="yuv420p"
      )
    self._file.write_frame(paint(record, self._class_names))

  def cut(self) -> None:
    """Ends the part that is being written."""
    # Let go first: a file that failed to close tries once more at exit.
    file, self._file = self._file, None
    if file is not None:
      file.close()

  def close(self) -> None:
    """Makes one video of the parts, and keeps them."""
    self.cut()
    parts = sorted(self._parts.iterdir())
    if parts:
      join_videos(parts, self._path, self._fps)


def join_videos(
  parts: list[pathlib.Path], path: pathlib.Path, fps: float
) -> None:
  """Puts videos of the same making one behind the other, as they are."""
  beside = path.with_name(path.stem + ".part.mp4")
  with av.open(beside, "w") as joined:
    stream, num_frames = None, 0
    for part in parts:
      with av.open(part) as video:
        (source,) = video.streams.video
        stream = stream or joined.add_stream_from_template(source)
        shift = round(num_frames / fps / source.time_base)
        for packet in video.demux(source):
          if packet.dts is None:  # the end
            continue
          num_frames += 1
          packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
          packet.stream = stream
          joined.mux(packet)
  os.replace(beside, path)


def _drop_from(folder, start):
  """Deletes what a folder holds of frame `start` and later."""
  for path in folder.iterdir():
    if not path.stem.isdecimal() or int(path.stem) >= start:
      path.unlink()


class SampleFrames:
  """A dozen overlays spread over a run whose length nobody knows.

  Keeps every k-th; when there are too many, k doubles and every other one goes.
  """

  def __init__(self, folder: pathlib.Path, class_names, start: int = 0):
    self._folder, self._class_names = folder, class_names
    folder.mkdir(parents=True, exist_ok=True)
    _drop_from(folder, start)
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
    Image.fromarray(paint(record, self._class_names)).save(path, quality=85)
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


class MaskFiles:
  """The student's class maps as PNG files with a palette, one a frame."""

  def __init__(self, folder: pathlib.Path, class_names, start: int = 0):
    self._folder = folder
    self._palette = palette.colors(len(class_names)).tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    _drop_from(folder, start)

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
  path: pathlib.Path,
  fps: float,
  class_names,
  *,
  video: bool,
  masks: bool,
  start: int = 0,
) -> list[Background]:
  """The pictures that a run was asked for, each written in its own thread.

  Args:
    path: the workdir.
    fps: of the stream.
    class_names: the student's.
    video: whether overlays are wanted.
    masks: whether class maps are.
    start: the first frame; what is there of it and later is deleted.
  """
  sinks = []
  if video:
    overlays = OverlayVideo(path, fps, class_names, start)
    folder = path / workdir.REPORT / "frames"
    samples = SampleFrames(folder, class_names, start)
    sinks.append(Background(overlays.write, overlays.cut, overlays.close))
    sinks.append(Background(samples.write))
  if masks:
    files = MaskFiles(path / workdir.MASKS, class_names, start)
    sinks.append(Background(files.write))
  return sinks
