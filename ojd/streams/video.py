"""`video:FILE`, or a path alone: the frames of a video file, without truth.

Frames stand upright, whatever way the camera was held; pixels that are not
square are left as they are stored. Each frame of the file is one sample, at
any rate of frames, and has its own time.

A frame that cannot be decoded is lost, and so are the frames that depend on it,
up to the next key frame: a decoder makes up their pixels, which would depend on
the frame where decoding began.

PyAV is used without imageio, which has neither stamps nor orientation nor
broken packets, and cannot start at a given frame.
"""

import hashlib
import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter

from ojd.errors import UserError
from ojd.streams import base, video_file
from ojd.types import Sample

DEFAULT_FPS = 25.0
_MIN_FPS, _MAX_FPS = 0.01, 1000.0
_MAX_BYTES_HASHED = 1 << 30
_END_BYTES_HASHED = 1 << 20
_NO_FRAME = "the decoder gives no frame for it"
_DAMAGED = "its data are damaged"
_HOLE = "its part of the file is damaged"
_EARLY = "the video ends before it"


class Decoded(NamedTuple):
  """A decoded frame, or why there is none."""

  frame: av.VideoFrame | None
  problem: str


class Probe(NamedTuple):
  """The first decoded frames of a file."""

  first: av.VideoFrame | None
  stamps: list[int | None]  # of the frames of the first packets
  problem: str  # with the first packets, if there was one


class Placed(NamedTuple):
  """A frame in its place of the stream, or why it is lost."""

  t: int
  frame: av.VideoFrame | None
  problem: str


class VideoStream:
  """A file decoded from the key frame before the first frame asked for."""

  def __init__(
    self, path: pathlib.Path, index: video_file.Index, spec: base.StreamSpec
  ):
    self.spec = spec
    self._path = path
    self._index = index

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a lost frame comes as None."""
    painter = Painter(self.spec.height, self.spec.width)
    for placed in self._place(start):
      if placed.t >= start:
        yield self._sample(placed, painter)

  def _place(self, start):
    index = self._index
    if not index.is_timed:
      decoded = decode(self._path)
      return place_by_count(decoded, self.spec.num_frames)
    key = index.key_before(start)
    decoded = decode(self._path, key)
    first = int(np.searchsorted(index.pts, key.pts)) if key else 0
    return place_by_time(decoded, index, first)

  def _sample(self, placed, painter):
    t, frame, problem = placed
    image = None
    if frame is not None:
      try:
        image = painter.paint(frame)
      except (av.FFmpegError, ValueError) as error:
        problem = words(error)
    if image is None:
      problem = f"{self._path.name}, frame {t}: {problem}"
    return Sample(t, image, None, problem, self._index.seconds(t))


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> VideoStream:
  """Reads the whole file without decoding it, but for the first frames."""
  address.refuse_others()
  path = pathlib.Path(os.path.expanduser(address.path))
  _check_is_file(path)
  try:
    content = _fingerprint(path)
    head, packets = video_file.scan(path)
    index = video_file.make_index(head, packets)
    probe = probe_file(path)
  except (av.FFmpegError, OSError) as error:
    raise UserError(
      f"--stream: {path} is not a video that can be read "
      f"({words(error)}); is the file whole?"
    ) from None
  if probe.first is None:
    raise UserError(
      f"--stream: no frame of {path} can be decoded ({probe.problem})"
    )
  index, num_frames = video_file.compare(
    index, probe.stamps, is_whole=not probe.problem
  )
  size = upright_size(probe.first)
  spec = base.resized_spec(
    *(size, height, width),
    fps=_average_rate(head, index),
    num_frames=num_frames,
    class_names=(),
    identity={
      "kind": "video",
      "content": content,
      "num_frames": num_frames,
    },
  )
  return VideoStream(path, index, spec)


def _check_is_file(path):
  if os.path.isdir(path):
    raise UserError(
      f"--stream: {path} is a folder; folder:{path} plays the images in it"
    )
  if not os.path.isfile(path):
    raise UserError(f"--stream: there is no video file {path}")


def _average_rate(head, index):
  """The container's rate if it fits the stamps; else the rate of the stamps."""
  num = len(index.pts)
  seconds = index.seconds(num - 1) if num > 1 else 0
  fps = head.fps
  if seconds:
    measured = (num - 1) / seconds
    fps = fps if abs(fps - measured) <= 0.02 * measured else measured
  return min(max(fps or DEFAULT_FPS, _MIN_FPS), _MAX_FPS)


def _fingerprint(path):
  """Changes with the content, but not with the file's path."""
  size = path.stat().st_size
  with path.open("rb") as file:
    if size <= _MAX_BYTES_HASHED:
      return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    # Reading all of a large file would take longer than it is worth.
    digest = hashlib.sha256(f"{size} {path.stat().st_mtime_ns} ".encode())
    digest.update(file.read(_END_BYTES_HASHED))
    file.seek(-_END_BYTES_HASHED, os.SEEK_END)
    digest.update(file.read())
  return digest.hexdigest()[:32]


def decode(
  path: pathlib.Path,
  key: video_file.Key | None = None,
  num_packets: int | None = None,
) -> Iterator[Decoded]:
  """Decodes a file, from a key frame on; an error comes in its place."""
  try:
    seek = _can_seek(path, key)
    with video_file.open_file(path) as (container, stream):
      stream.thread_type = "AUTO"
      if seek:
        container.seek(key.earlier, stream=stream)
      packets = video_file.demux(container, stream)
      if key:
        packets = itertools.dropwhile(lambda p: p.pts != key.pts, packets)
      packets = itertools.islice(packets, num_packets)
      for packet in itertools.chain(packets, [None]):
        try:
          frames = stream.decode(packet)
        except av.FFmpegError as error:
          yield Decoded(None, words(error))
        else:
          yield from (Decoded(frame, "") for frame in frames)
  except (av.FFmpegError, OSError) as error:
    yield Decoded(None, words(error))


def probe_file(path: pathlib.Path) -> Probe:
  """Decodes the first packets, or where they give nothing, further ones."""
  first, stamps, problem = None, [], ""
  for frame, trouble in decode(path, num_packets=video_file.NUM_PROBED):
    if frame is None or frame.is_corrupt:
      problem = problem or trouble or _DAMAGED
    if frame is not None:
      first = first or frame
      stamps.append(frame.pts)
  if first is None:
    first = next((d.frame for d in decode(path) if d.frame), None)
    problem = problem or _NO_FRAME
  return Probe(first, stamps, problem)


def _can_seek(path, key):
  """Whether seeking gives the packets that reading on would give."""
  if key is None:
    return False
  with video_file.open_file(path) as (container, stream):
    try:
      container.seek(key.earlier, stream=stream)
    except av.FFmpegError:
      return False
    first = next(video_file.demux(container, stream), None)
    return first is not None and first.pts in (key.earlier, key.pts)


def words(error: Exception) -> str:
  """The words of an error of libav, without its number and the file's name."""
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return " ".join(text.split())


def place_by_time(
  decoded: Iterable[Decoded], index: video_file.Index, first: int
) -> Iterator[Placed]:
  """Gives each frame from `first` on, in the place that its stamp names."""
  t, error, damage = first, "", ""
  for frame, problem in decoded:
    if frame is None:
      error = problem
      continue
    rank = index.rank(frame.pts)
    if rank is None or rank < t:
      continue
    for lost in range(t, rank):
      damage = damage or error or _why_lost(index, lost)
      yield Placed(lost, None, damage or _NO_FRAME)
    if rank > t:
      error = ""
    if frame.is_corrupt:
      damage = damage or _DAMAGED
    elif index.is_key[rank]:
      damage = ""
    yield Placed(rank, None if damage else frame, damage)
    t = rank + 1
  for lost in range(t, len(index.pts)):
    damage = damage or error or _why_lost(index, lost)
    yield Placed(lost, None, damage or _NO_FRAME)


def _why_lost(index, t):
  """Why the frames after frame t are lost, if it was not decoded."""
  if index.is_hole[t]:
    return _HOLE
  return _NO_FRAME if index.is_key[t] else ""


def place_by_count(
  decoded: Iterable[Decoded], num_frames: int | None
) -> Iterator[Placed]:
  """Gives frames in the order in which they come, each a place."""
  t, damage = 0, ""
  for frame, problem in itertools.islice(decoded, num_frames):
    if frame is None or frame.is_corrupt:
      damage = damage or problem or _DAMAGED
    elif frame.key_frame:
      damage = ""
    yield Placed(t, None if damage else frame, damage)
    t += 1
  for lost in range(t, num_frames or 0):
    yield Placed(lost, None, _EARLY)


class Painter:
  """Makes upright RGB images of one size out of frames of any kind."""

  def __init__(self, height: int, width: int):
    self._size = height, width
    # One converter for all frames: setting it up costs more than a frame.
    self._reformatter = VideoReformatter()

  def paint(self, frame: av.VideoFrame) -> np.ndarray:
    """Returns [height, width, 3] uint8."""
    a, b, c, d = orientation(frame)
    is_lying = abs(b) > abs(a)
    height, width = self._size[::-1] if is_lying else self._size
    shrinks = max(frame.height / height, frame.width / width) > 2
    rgb = self._reformatter.reformat(
      frame,
      width=width,
      height=height,
      format="rgb24",
      interpolation="AREA" if shrinks else "BILINEAR",
    )
    image = rgb.to_ndarray()
    if is_lying:
      image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: _sign(d), :: _sign(a)])


def orientation(frame: av.VideoFrame) -> tuple[float, float, float, float]:
  """a, b, c, d: pixel (x, y) is shown at (a x + c y, b x + d y), y down."""
  try:
    matrix = np.frombuffer(frame.side_data[SideData.DISPLAYMATRIX], np.int32)
  except KeyError:
    return 1, 0, 0, 1
  except ValueError:  # beside it lies data of a kind that PyAV has no name for
    angle = math.radians(frame.rotation)
    return (
      *(math.cos(angle), -math.sin(angle)),
      *(math.sin(angle), math.cos(angle)),
    )
  return tuple(matrix[[0, 1, 3, 4]].tolist())


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
  """Height and width of the frame as it is to be seen."""
  a, b, _, _ = orientation(frame)
  size = frame.height, frame.width
  return size[::-1] if abs(b) > abs(a) else size


def _sign(x):
  return -1 if x < 0 else 1
