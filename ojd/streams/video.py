"""`video:FILE`, or a path alone: the frames of a video file, without truth.

Frames stand upright, whatever way the camera was held; pixels that are not
square are left as they are stored. Each frame of the file is one sample, at
any rate of frames, and tells its own time.

PyAV is used without imageio, which tells neither stamps nor orientation nor
broken packets, and cannot start at a given frame.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterator

import av
import numpy as np

from ojd.errors import UserError
from ojd.streams import base, video_file, video_frames, video_index
from ojd.types import Sample

DEFAULT_FPS = 25.0
_MIN_FPS, _MAX_FPS = 0.01, 1000.0
_MAX_BYTES_HASHED = 1 << 30
_END_BYTES_HASHED = 1 << 20


class VideoStream:
  """A file decoded from the key frame before the first frame asked for."""

  def __init__(
    self, path: pathlib.Path, index: video_index.Index, spec: base.StreamSpec
  ):
    self.spec = spec
    self._path = path
    self._index = index

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a lost frame comes as None."""
    painter = video_frames.Painter(self.spec.height, self.spec.width)
    for placed in self._place(start):
      if placed.t >= start:
        yield self._sample(placed, painter)

  def _place(self, start):
    index = self._index
    if not index.is_timed:
      decoded = video_frames.decode(self._path)
      return video_frames.place_by_count(decoded, self.spec.num_frames)
    key = index.key_before(start)
    decoded = video_frames.decode(self._path, key)
    first = int(np.searchsorted(index.pts, key.pts)) if key else 0
    return video_frames.place_by_time(decoded, index, first)

  def _sample(self, placed, painter):
    t, frame, problem = placed
    image = None
    if frame is not None:
      try:
        image = painter.paint(frame)
      except (av.FFmpegError, ValueError) as error:
        problem = video_frames.words(error)
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
    index = video_index.make_index(head, packets)
    probe = video_frames.probe(path)
  except (av.FFmpegError, OSError) as error:
    raise UserError(
      f"--stream: {path} is not a video that can be read "
      f"({video_frames.words(error)}); is the file whole?"
    ) from None
  if probe.first is None:
    raise UserError(
      f"--stream: no frame of {path} can be decoded ({probe.problem})"
    )
  index, num_frames = video_index.compare(
    index, probe.stamps, is_whole=not probe.problem
  )
  size = video_frames.upright_size(probe.first)
  spec = base.StreamSpec(
    height=height or size[0],
    width=width or size[1],
    fps=_average_rate(head, index),
    num_frames=num_frames,
    class_names=(),
    identity={
      "kind": "video",
      "content": content,
      "num_frames": num_frames,
      "source_size": list(size),
    },
    source_size=size,
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
  """The container's word, where it fits the stamps; else what they say."""
  num = len(index.pts)
  seconds = index.seconds(num - 1) if num > 1 else 0
  fps = head.fps
  if seconds:
    measured = (num - 1) / seconds
    fps = fps if abs(fps - measured) <= 0.02 * measured else measured
  return min(max(fps or DEFAULT_FPS, _MIN_FPS), _MAX_FPS)


def _fingerprint(path):
  """Changes with the content, but not with the file's name or place."""
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
