"""`camera:N`, `rtsp://...`, `http://...`: frames that come when they come.

A thread takes every frame from the source, and keeps only the newest for a
consumer that is slow: what it gets is never old. A source that breaks off, or
gives nothing for a while, is opened again, after 1, 2, 4, ... 30 seconds; each
time it is told once, as a sample without a frame. The file of a web server
plays at its own rate and ends where it ends.
"""

import collections
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import av

from ojd.errors import UserError
from ojd.streams import base, live_source
from ojd.streams.live_source import Connection, Source, SourceError
from ojd.streams.video_frames import Painter, upright_size, words
from ojd.types import Sample


class Limits(NamedTuple):
  """Of time, in seconds, and of frames."""

  open: float = 10.0  # for a connection and its first frame
  stall: float = 10.0  # without a frame, then it is opened again
  give_up: float = 300.0  # without a frame, then the stream is over
  first_pause: float = 1.0
  longest_pause: float = 30.0
  depth: int = 2  # frames that wait for the consumer


class LiveStream:
  """Frames from now on; reading again goes on, and gives none twice."""

  def __init__(
    self,
    source: Source,
    connection: Connection,
    spec: base.StreamSpec,
    limits: Limits,
  ):
    self.spec = spec
    self._feed = _Feed(source, connection, limits)
    self._painter = Painter(spec.height, spec.width)

  @property
  def num_dropped(self) -> int:
    """Frames that the consumer was too slow for."""
    return self._feed.num_dropped

  @property
  def num_reconnects(self) -> int:
    """Times that the source was opened again."""
    return self._feed.num_reconnects

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields what comes from now on as samples t = start, start + 1, ..."""
    self._feed.start()
    t = start
    while (item := self._feed.take()) is not None:
      if isinstance(item, str):
        yield Sample(t, None, None, item)
      else:
        frame = self._painter.paint(item.frame)
        yield Sample(t, frame, None, seconds=item.seconds)
      t += 1

  def close(self) -> None:
    """Lets the source go; `read` ends, in whatever thread it waits."""
    self._feed.close()


class _Timed(NamedTuple):
  frame: av.VideoFrame
  seconds: float  # since the stream began


class _Feed:
  """The thread that takes the frames, and what it has for the consumer."""

  def __init__(
    self,
    source: Source,
    connection: Connection,
    limits: Limits,
    clock: Callable[[], float] = time.monotonic,
  ):
    self.num_dropped = self.num_reconnects = 0
    self._source, self._limits, self._clock = source, limits, clock
    self._connection = connection
    self._frames: collections.deque[_Timed] = collections.deque()
    self._problem = ""
    self._is_over = False
    self._news = threading.Condition()
    self._stopped = threading.Event()
    self._begun = self._seen = clock()
    self._last_seconds = 0.0
    self._thread: threading.Thread | None = None

  def start(self):
    """Begins; a second call does nothing."""
    if self._thread is None and not self._stopped.is_set():
      self._thread = threading.Thread(
        target=self._run, name="live stream", daemon=True
      )
      self._thread.start()

  def take(self) -> _Timed | str | None:
    """The next frame or problem, once there is one; None at the end."""
    with self._news:
      while not (self._frames or self._problem or self._is_over):
        self._news.wait()
      # Frames that came before a problem come first.
      if self._frames:
        return self._frames.popleft()
      problem, self._problem = self._problem, ""
      return problem or None

  def close(self):
    self._stopped.set()
    self._finish()
    if self._thread is None:
      self._connection.container.close()

  def _finish(self):
    with self._news:
      self._is_over = True
      self._news.notify_all()

  def _run(self):
    connection: Connection | None = self._connection
    try:
      while connection is not None and not self._stopped.is_set():
        reason = self._drain(connection)
        connection.container.close()
        if not reason or self._stopped.is_set():
          return
        self._tell(f"{self._source.shown}: {reason}; it is opened again")
        connection = self._reconnect()
    finally:
      self._finish()

  def _drain(self, connection: Connection) -> str:
    """Takes frames while there are some; returns why there are no more."""
    begin = self._clock()
    # Time stamps go on where they were, however long nothing came.
    offset = begin - self._begun
    first = connection.first.time or 0.0
    try:
      self._put(connection.first, offset)
      for frame in connection.frames:
        passed = first if frame.time is None else frame.time
        seconds = offset + passed - first
        if connection.is_paced:
          ahead = begin + passed - first - self._clock()
          self._stopped.wait(min(max(ahead, 0), self._limits.stall))
        if self._stopped.is_set():
          return ""
        self._put(frame, seconds)
    except av.error.ExitError:
      return f"no frame in {self._limits.stall:g} s"
    except (av.FFmpegError, OSError, ValueError) as error:
      return words(error)
    return "" if self._source.is_file else "it ended"

  def _put(self, frame, seconds):
    self._seen = self._clock()
    with self._news:
      self._last_seconds = max(self._last_seconds, seconds)
      self._frames.append(_Timed(frame, self._last_seconds))
      if len(self._frames) > self._limits.depth:
        self._frames.popleft()
        self.num_dropped += 1
      self._news.notify_all()

  def _tell(self, problem):
    with self._news:
      self._problem = problem
      self._news.notify_all()

  def _reconnect(self) -> Connection | None:
    """Tries until there is a frame; None after too long a time."""
    limits, pause = self._limits, self._limits.first_pause
    while not self._stopped.wait(pause):
      try:
        found = live_source.connect(self._source, limits.open, limits.stall)
      except SourceError as error:
        if self._clock() - self._seen > limits.give_up:
          gone = f"{limits.give_up:g} s without a frame"
          self._tell(f"{self._source.shown}: {gone} ({error}); it is given up")
          return None
        pause = min(2 * pause, limits.longest_pause)
      else:
        self.num_reconnects += 1
        return found
    return None


def open_stream(
  address: base.Address,
  height: int | None,
  width: int | None,
  limits: Limits = Limits(),  # noqa: B008, it never changes
) -> LiveStream:
  """Opens the source, to learn the size of its frames."""
  source = live_source.of_address(address)
  try:
    connection = live_source.connect(source, limits.open, limits.stall)
  except SourceError as error:
    raise UserError(f"--stream={source.shown}: {error}") from None
  size = upright_size(connection.first)
  identity: dict[str, Any] = {
    "kind": "live",
    "address": source.shown,
    "source_size": list(size),
  }
  spec = base.StreamSpec(
    height=height or size[0],
    width=width or size[1],
    fps=connection.fps,
    num_frames=None,
    class_names=(),
    identity=identity,
    source_size=size,
    is_live=True,
  )
  return LiveStream(source, connection, spec, limits)
