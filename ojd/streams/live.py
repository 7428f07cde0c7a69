"""`camera:N`, `rtsp://...`, `http://...`: live frames.

A thread takes every frame from the source, and keeps only the newest one. So a
slow consumer never gets an old frame. A source that breaks off, or
gives nothing for a while, is opened again, after 1, 2, 4, ... 30 seconds; each
time a sample without a frame reports it once. The file of a web server
plays at its own rate and ends where it ends.

An address reads from the network alone: neither a redirect nor a playlist leads
to a file of this machine.
"""

import collections
import pathlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av

from ojd.errors import UserError
from ojd.streams import base
from ojd.streams.video import Painter, upright_size, words
from ojd.types import Sample

_PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtcp,rtsp,rtmp,rtmps,crypto"
_CAMERA_OPTIONS = ("size", "fps")
_GRACE_SECONDS = 2.0  # for libav to notice its own time limit
_DEFAULT_FPS = 25.0


class Source(NamedTuple):
  """A source, which may be opened several times."""

  name: str  # for libav
  shown: str  # for people: without a password
  format: str | None  # of a device
  options: dict[str, str]
  is_file: bool  # on a server: its end is the end of the stream


class SourceError(OSError):
  """A source could not be opened, or broke off; in words."""


class Connection(NamedTuple):
  """An open source and its first frame."""

  container: av.container.InputContainer
  frames: Iterator[av.VideoFrame]  # those after the first
  first: av.VideoFrame
  fps: float
  is_paced: bool  # the source gives frames faster than they are to be seen


class Limits(NamedTuple):
  """Of time, in seconds, and of frames."""

  open: float = 10.0  # for a connection and its first frame
  stall: float = 10.0  # without a frame, then it is opened again
  give_up: float = 300.0  # without a frame, then the stream is over
  first_pause: float = 1.0
  longest_pause: float = 30.0
  depth: int = 2  # frames that wait for the consumer


class _Timed(NamedTuple):
  frame: av.VideoFrame
  seconds: float  # since the stream began


class LiveStream:
  """Frames from now on; reading again continues, and no frame comes twice."""

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
    """Frames dropped because the consumer was slow."""
    return self._feed.num_dropped

  @property
  def num_reconnects(self) -> int:
    """Times that the source was opened again."""
    return self._feed.num_reconnects

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields the frames from now on as samples t = start, start + 1, ..."""
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
    """Closes the source; a `read` that waits in any thread ends."""
    self._feed.close()


class _Feed:
  """The thread that takes the frames, and the newest one."""

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
    """Starts the thread; a second call does nothing."""
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
        self._note(f"{self._source.shown}: {reason}; opening it again")
        connection = self._reconnect()
    finally:
      self._finish()

  def _drain(self, connection: Connection) -> str:
    """Takes frames until the source ends; returns why it ended."""
    begin = self._clock()
    # Time stamps continue, however long nothing came.
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

  def _note(self, problem):
    with self._news:
      self._problem = problem
      self._news.notify_all()

  def _reconnect(self) -> Connection | None:
    """Tries until there is a frame; None when the time is over."""
    limits, pause = self._limits, self._limits.first_pause
    while not self._stopped.wait(pause):
      try:
        found = connect(self._source, limits.open, limits.stall)
      except SourceError as error:
        if self._clock() - self._seen > limits.give_up:
          gone = f"{limits.give_up:g} s without a frame"
          self._note(f"{self._source.shown}: {gone} ({error}); giving up")
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
  source = of_address(address)
  try:
    connection = connect(source, limits.open, limits.stall)
  except SourceError as error:
    raise UserError(f"--stream={source.shown}: {error}") from None
  spec = base.resized_spec(
    *(upright_size(connection.first), height, width),
    fps=connection.fps,
    num_frames=None,
    class_names=(),
    identity={"kind": "live", "address": source.shown},
    is_live=True,
  )
  return LiveStream(source, connection, spec, limits)


def of_address(address: base.Address) -> Source:
  """The source of `camera:N` or of the address of a server."""
  if address.scheme == "camera":
    return _camera(address)
  name = f"{address.scheme}:{address.path}"
  options = {
    "protocol_whitelist": _PROTOCOLS,
    # What is read before the first frame delays every frame after it.
    "analyzeduration": "1000000",
  }
  if address.scheme.startswith("rtsp"):
    options["rtsp_transport"] = "tcp"  # passes more walls, loses no packets
  return Source(
    name=name,
    shown=base.without_password(name),
    format=None,
    options=options,
    is_file=address.scheme in ("http", "https"),
  )


def _camera(address):
  address.refuse_others(*_CAMERA_OPTIONS)
  name = address.path or "0"
  options = {"video_size": address.option("size", str, "")}
  options["framerate"] = address.option("fps", str, "")
  options = {key: value for key, value in options.items() if value}
  if sys.platform == "darwin":
    return Source(name, f"camera:{name}", "avfoundation", options, False)
  if not sys.platform.startswith("linux"):
    raise UserError("--stream=camera: works on Linux and macOS only")
  path = pathlib.Path(f"/dev/video{name}" if name.isdecimal() else name)
  if not path.is_char_device():
    known = sorted(str(p) for p in pathlib.Path("/dev").glob("video*"))
    raise UserError(
      f"--stream=camera:{name}: there is no camera {path}; there is "
      f"{', '.join(known) or 'none'}"
    )
  return Source(str(path), f"camera:{name}", "v4l2", options, False)


def connect(source: Source, open_seconds: float, stall: float) -> Connection:
  """Opens a source and waits for its first frame.

  Args:
    source: of `of_address`.
    open_seconds: for both; then the source is given up.
    stall: seconds that may pass between two frames later on.

  Raises:
    SourceError: there was no frame in time.
  """
  answers: queue.SimpleQueue = queue.SimpleQueue()
  is_late = threading.Event()

  def work():
    try:
      connection = _connect(source, open_seconds, stall)
    except av.error.ExitError:
      answers.put(SourceError(f"no frame in {open_seconds:g} s"))
      return
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
      answers.put(SourceError(words(error)))
      return
    answers.put(connection)
    if is_late.is_set():
      connection.container.close()

  # libav keeps its time limits for most of what it does, but not for all.
  threading.Thread(target=work, name="connect", daemon=True).start()
  try:
    answer = answers.get(timeout=2 * open_seconds + _GRACE_SECONDS)
  except queue.Empty:
    is_late.set()
    raise SourceError(f"no frame in {open_seconds:g} s") from None
  if isinstance(answer, SourceError):
    raise answer
  return answer


def _connect(source, open_seconds, stall):
  container = av.open(
    source.name,
    format=source.format,
    options=source.options,
    timeout=(open_seconds, min(stall, open_seconds)),
    metadata_errors="replace",
  )
  try:
    stream = container.streams.best("video")
    if stream is None or stream.codec_context is None:
      raise SourceError("it has no video that can be read")
    stream.thread_type = "SLICE"  # threads by frame are frames of delay
    stream.codec_context.options = {"max_pixels": str(base.MAX_SIDE**2)}
    frames = _decode(container, stream)
    first = next(frames, None)
    if first is None:
      raise SourceError("it ends without a frame")
    if max(first.height, first.width) > base.MAX_SIDE:
      raise SourceError(f"its frames have {first.width}x{first.height} pixels")
    is_paced = source.is_file and bool(container.duration)
    fps = _frames_per_second(stream)
  except BaseException:
    container.close()
    raise
  return Connection(container, frames, first, fps, is_paced)


def _decode(container, stream) -> Iterator[av.VideoFrame]:
  """Frames as they come, without those that cannot be decoded."""
  for packet in container.demux(stream):
    try:
      yield from packet.decode()
    except av.error.InvalidDataError:
      continue
    except av.error.EOFError:  # flushed once more
      return


def _frames_per_second(stream):
  for rate in (stream.average_rate, stream.guessed_rate):
    if rate and 0.1 <= rate <= 1000:
      return float(rate)
  return _DEFAULT_FPS
