"""Where live frames come from: a camera or an address, opened within a time.

Nothing but the network may be read through an address: neither a redirect nor a
playlist leads to a file of this machine.
"""

import pathlib
import queue
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

import av

from ojd.errors import UserError
from ojd.streams import base
from ojd.streams.video_frames import words

_PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtcp,rtsp,rtmp,rtmps,crypto"
_CAMERA_OPTIONS = ("size", "fps")
_GRACE_SECONDS = 2.0  # for libav to notice its own time limit
_DEFAULT_FPS = 25.0


class Source(NamedTuple):
  """What is opened, again and again if need be."""

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


def of_address(address: base.Address) -> Source:
  """The source of `camera:N` or of the address of a server."""
  if address.scheme == "camera":
    return _camera(address)
  name = f"{address.scheme}:{address.path}"
  options = {
    "protocol_whitelist": _PROTOCOLS,
    # What is looked at before the first frame is late for ever after.
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
    open_seconds: for both; then it is given up.
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
  """Frames as they come; what cannot be decoded is left out."""
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
