"""Some frames of a stream as a stream: from one on, and every n-th of them."""

from collections.abc import Iterator

from ojd.errors import UserError
from ojd.streams import base
from ojd.types import Sample

_MOST_FRAMES = 10**9


class WindowStream:
  """Frames start_frame, start_frame + every, ... numbered t = 0, 1, ..."""

  def __init__(self, stream: base.Stream, start_frame: int, every: int):
    source = stream.spec
    self._stream, self._start_frame, self._every = stream, start_frame, every
    self.spec = source._replace(
      fps=source.fps / every,
      num_frames=source.num_frames
      and len(range(start_frame, source.num_frames, every)),
      identity={
        "kind": "window",
        "start_frame": start_frame,
        "every": every,
        "of": source.identity,
      },
    )

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; their times are those of the source."""
    first = self._start_frame + start * self._every
    # A live stream has nothing to skip to: what comes first is let pass.
    is_fresh = self.spec.is_live and start == 0
    for sample in self._stream.read(0 if is_fresh else first):
      turn, rest = divmod(sample.t - self._start_frame, self._every)
      if turn >= start and not rest:
        yield sample._replace(t=turn, seconds=self._seconds(sample))

  def close(self) -> None:
    """Lets the source go."""
    base.close(self._stream)

  def _seconds(self, sample):
    if sample.seconds is not None:
      return sample.seconds
    return sample.t / self._stream.spec.fps


def window(
  stream: base.Stream, start_frame: int = 0, every: int = 1
) -> base.Stream:
  """Plays every n-th frame of a stream from one frame on.

  Args:
    stream: where the frames come from; itself the answer if all are wanted.
    start_frame: the first frame to play, from 0.
    every: n.
  """
  check(start_frame, every)
  num_frames = stream.spec.num_frames
  if num_frames is not None and 0 < num_frames <= start_frame:
    raise UserError(
      f"--start_frame={start_frame}: the stream has {num_frames} frames, "
      "counted from 0"
    )
  if (start_frame, every) == (0, 1):
    return stream
  return WindowStream(stream, start_frame, every)


def check(start_frame: int, every: int) -> None:
  """Raises a UserError that names the flag out of its range."""
  if not 0 <= start_frame <= _MOST_FRAMES:
    raise UserError(f"--start_frame={start_frame}: from 0 to {_MOST_FRAMES}")
  if not 1 <= every <= _MOST_FRAMES:
    raise UserError(f"--every={every}: from 1 to {_MOST_FRAMES}")
