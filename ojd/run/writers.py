"""The record of a frame, and files that a resumed run continues.

JSON lines and videos are cut off at the frame that a run resumes at. A thread
writes what takes long to write.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import queue
import threading
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np

from ojd.formats import log as log_lib
from ojd.formats.replacing import replacing
from ojd.types import StepInfo

_QUEUE_LENGTH = 8  # the stream waits for a full queue, to bound the memory
_MAX_DENOMINATOR = 2**16 - 1  # of a frame rate, in any container


@dataclasses.dataclass(slots=True)
class FrameRecord:
  """A line of metrics.jsonl; it leaves out fields that are None."""

  t: int  # index of the frame
  is_key: bool = False  # whether the system learned at this frame
  asked: bool | None = None  # the teacher gets it, and the stream goes on
  sent: bool | None = None  # over the network to the server
  key_t: int | None = None  # the earlier frame that was labeled
  delay: int | None = None  # frames from that one to this one
  num_updates: int | None = None
  num_rolled_back: int | None = None
  miou_before: float | None = None  # of the student with the labels
  miou_after: float | None = None
  loss: float | None = None
  grad_norm: float | None = None
  bytes_up: int | None = None  # from the device to the server
  spare: float | None = None  # unused bytes of the uplink's encoder
  bytes_down: int | None = None
  staleness: int | None = None  # frames until the device has the update
  stride: int | None = None
  eval_miou: float | None = None  # with the truth, or else the teacher
  eval_t: int | None = None  # the earlier frame that eval_miou is for
  # Milliseconds; only these differ between equal runs.
  ms_wait: float | None = None  # for a shared teacher
  ms_teacher: float | None = None
  ms_eval_teacher: float | None = None
  ms_predict: float | None = None
  ms_learn: float | None = None

  def to_json(self) -> dict[str, Any]:
    """The line as JSON. NaN and infinity become null."""
    return {
      name: None if isinstance(x, float) and not math.isfinite(x) else x
      for name, x in dataclasses.asdict(self).items()
      if x is not None
    }

  def set_step(self, info: StepInfo) -> None:
    """Makes it the record of a key frame; `info` has plain numbers."""
    self.is_key = True
    self.num_updates = info.num_updates
    self.num_rolled_back = info.num_rolled_back
    self.miou_before, self.miou_after = info.miou_before, info.miou_after
    self.loss, self.grad_norm = info.loss, info.grad_norm


class Background:
  """Calls `write` in a thread, in order; the caller gets its errors."""

  def __init__(
    self,
    write: Callable[[Any], None],
    cut: Callable[[], None] = lambda: None,
    close: Callable[[], None] = lambda: None,
  ):
    """Starts the thread, which calls `write` and `cut`.

    Args:
      write: takes the items of `put`.
      cut: completes what has been written so far.
      close: called last.
    """
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

  def put(self, item: Any) -> None:
    """Hands an item over; waits while the queue is full."""
    if self._error is not None:
      raise self._error
    self._queue.put(item)

  def cut(self) -> Callable[[], None]:
    """Lets a resumed run continue here; returns how to wait for that."""
    done = threading.Event()
    self._queue.put(done)

    def wait():
      done.wait()
      if self._error is not None:
        raise self._error

    return wait

  def close(self) -> None:
    """Waits until everything is written."""
    self._queue.put(None)
    self._thread.join()
    try:
      self._close()
    finally:
      # This error comes first: it is the cause of an error of closing.
      if self._error is not None:
        raise self._error


class JsonLines:
  """Appends lines; lines of one call are written together or not at all."""

  def __init__(self, path: pathlib.Path, is_kept: Callable[[int, bytes], bool]):
    """Opens the file and cuts it off at the first line that is not kept.

    Args:
      path: of the file.
      is_kept: takes the index of a whole line, and the line.
    """
    file = path.open("ab+", buffering=0)
    self._file = log_lib.Appender(file, _end(path, is_kept))

  def write(self, lines: Iterable[dict[str, Any]]) -> None:
    """Writes the lines to the file at once."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    self._file.add(text.encode())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _end(path, is_kept):
  """The size of the first lines that are whole and kept, in bytes."""
  end = 0
  with path.open("rb") as file:
    for index, line in enumerate(file):
      if not line.endswith(b"\n") or not is_kept(index, line):
        break
      end += len(line)
  return end


def is_before(start: int, key: str) -> Callable[[int, bytes], bool]:
  """Keeps the lines whose `key`, a frame index, is below `start`."""

  def is_kept(index: int, line: bytes) -> bool:
    del index
    try:
      return json.loads(line)[key] < start
    except (ValueError, KeyError, TypeError):
      return False

  return is_kept


class MetricsWriter:
  """Appends one JSON line per frame; each is written at once."""

  def __init__(self, path: pathlib.Path, num_lines: int = 0):
    """Opens the file and keeps its first `num_lines` lines."""
    self._lines = JsonLines(path, lambda index, _: index < num_lines)

  def write(self, line: dict[str, Any]) -> None:
    """Takes the JSON of a record."""
    self._lines.write([line])

  def close(self) -> None:
    """Closes the file."""
    self._lines.close()


class Codec(NamedTuple):
  """The encoding of a video."""

  name: str  # as FFmpeg calls it
  container: str  # as FFmpeg calls it
  suffix: str  # of its files
  pixels: str  # format of the input pictures
  coded_pixels: str
  options: dict[str, str]
  # Whether frame t is shown at t / fps even if earlier frames are missing.
  keeps_gaps: bool


# Every browser plays it.
H264 = Codec(
  *("libx264", "mp4", ".mp4", "rgb24", "yuv420p"), {}, keeps_gaps=False
)
# Lossless; every frame is a key frame and has a checksum.
LABELS = Codec(
  *("ffv1", "matroska", ".mkv", "gray", "gray"),
  {"level": "3", "g": "1", "slicecrc": "1"},
  keeps_gaps=True,
)


class PartedVideo:
  """A video that a resumed run continues.

  A program cannot append to a truncated video, so each stretch between two
  checkpoints is a file of its own; `close` joins them.
  """

  def __init__(
    self,
    path: pathlib.Path,
    parts: pathlib.Path,
    codec: Codec,
    fps: float,
    start: int = 0,
  ):
    """Names the video and deletes the parts of frame `start` and later.

    Args:
      path: of the joined video.
      parts: the folder of the parts.
      codec: of all files.
      fps: frames per second.
      start: the first frame that will be written.
    """
    self._path, self._parts, self._codec = path, parts, codec
    self._rate = Fraction(fps).limit_denominator(_MAX_DENOMINATOR)
    self._file = None
    parts.mkdir(exist_ok=True)
    drop_from(parts, start)

  def write(self, t: int, picture: np.ndarray) -> None:
    """Adds the picture of frame `t`, which is later than all before."""
    with self._whole_or_gone():
      if self._file is None:
        self._open(t, *picture.shape[:2])
      frame = av.VideoFrame.from_ndarray(picture, format=self._codec.pixels)
      frame.pts = t if self._codec.keeps_gaps else self._num_frames
      frame.time_base = 1 / self._rate
      self._num_frames += 1
      self._file.mux(self._stream.encode(frame))

  def _open(self, t, height, width):
    codec = self._codec
    self._part = self._parts / f"{t:06d}{codec.suffix}"
    self._file, self._num_frames = av.open(self._part, "w"), 0
    self._stream = self._file.add_stream(
      codec.name, rate=self._rate, options=codec.options
    )
    self._stream.height, self._stream.width = height, width
    self._stream.pix_fmt = codec.coded_pixels

  def cut(self) -> None:
    """Finishes the current part."""
    if self._file is not None:
      with self._whole_or_gone():
        self._file.mux(self._stream.encode(None))
        self._file.close()
      self._file = None

  @contextlib.contextmanager
  def _whole_or_gone(self):
    """Deletes the part if writing fails: it cannot be played or joined."""
    try:
      yield
    except BaseException:
      # Dropped first: a file that failed to close tries again at exit.
      file, self._file = self._file, None
      with contextlib.suppress(OSError):
        self._part.unlink()
        file.close()
      raise

  def close(self) -> None:
    """Joins the parts to one video, and keeps the parts."""
    self.cut()
    parts = sorted(self._parts.iterdir(), key=lambda part: int(part.stem))
    if parts:
      _join(parts, self._path, self._codec, self._rate)


def _join(parts, path, codec, rate):
  """Joins videos without encoding them again; writes a whole file or none."""
  with (
    replacing(path) as beside,
    av.open(beside, "w", format=codec.container) as joined,
  ):
    stream, num_frames = None, 0
    for part in parts:
      with av.open(part) as video:
        (source,) = video.streams.video
        stream = stream or joined.add_stream_from_template(source)
        shift = 0
        if not codec.keeps_gaps:
          shift = round(num_frames / rate / source.time_base)
        for packet in video.demux(source):
          if packet.dts is None:  # the end
            continue
          num_frames += 1
          packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
          packet.stream = stream
          joined.mux(packet)


def drop_from(folder: pathlib.Path, start: int) -> None:
  """Deletes the files of a folder that are named after frame `start` or later.

  Files with other names are deleted too.
  """
  for path in folder.iterdir():
    if not path.stem.isdecimal() or int(path.stem) >= start:
      path.unlink()
