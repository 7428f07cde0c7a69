r"""Streams made of others: one after another, and every n-th frame of one.

`concat:ADDRESS|ADDRESS|...` plays several streams in turn.

All frames get the size of the first stream, unless another is asked for. The
classes are those of all streams, matched by their names; frames of a stream
without labels are then ignored everywhere. A stream lasts its number of frames
over its rate, and the times of the next continue from there. Only the last may
be live or of unknown length. `\|` stands for a bar in an address.

`window` plays a stream from a frame on, or every n-th frame of it.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from ojd.errors import UserError
from ojd.streams import base
from ojd.types import IGNORE, MAX_CLASSES, Sample

_SCHEME = "concat:"
_BAR = re.compile(r"(?<!\\)\|")
_MOST_FRAMES = 10**9


class ConcatStream:
  """Streams of one size, played in turn as if they were one."""

  def __init__(self, parts: Sequence[base.Stream], spec: base.StreamSpec):
    self.spec = spec
    self._parts = parts
    self._lookups = [
      _lookup(part.spec.class_names, spec.class_names) for part in parts
    ]

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, ...; a broken frame comes as None."""
    first, seconds = 0, 0.0
    for part, lookup in zip(self._parts, self._lookups, strict=True):
      num_frames = part.spec.num_frames
      skip = max(start - first, 0)
      if num_frames is None or skip < num_frames:
        for sample in _read_whole(part, skip):
          yield self._moved(sample, first, seconds, part.spec.fps, lookup)
      if num_frames is not None:
        first += num_frames
        seconds += num_frames / part.spec.fps

  def close(self) -> None:
    """Closes the last stream, if it is live."""
    base.close(self._parts[-1])

  def _moved(self, sample, first, seconds, fps, lookup):
    """A part's sample as one of the whole."""
    own_seconds = sample.t / fps if sample.seconds is None else sample.seconds
    return sample._replace(
      t=first + sample.t,
      truth=self._truth(sample, lookup),
      seconds=seconds + own_seconds,
    )

  def _truth(self, sample, lookup):
    if sample.frame is None or not self.spec.class_names:
      return None
    if sample.truth is None:
      return np.full(sample.frame.shape[:2], IGNORE, np.uint8)
    return lookup[sample.truth]


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> ConcatStream:
  """Opens all of the streams, so that a run does not end half-way."""
  address.refuse_others()
  uris = [uri.replace(r"\|", "|") for uri in _BAR.split(address.path)]
  for uri in uris:
    if not uri:
      raise UserError(
        "--stream: concat: has an empty address; give concat:ADDRESS|ADDRESS"
      )
    if uri.startswith(_SCHEME):
      raise UserError(
        "--stream: concat: cannot hold another concat:; join all with '|'"
      )
  head = base.open_stream(uris[0], height, width)
  size = head.spec.height, head.spec.width
  parts = [head, *(base.open_stream(uri, *size) for uri in uris[1:])]
  specs = [part.spec for part in parts]
  for uri, spec in zip(uris[:-1], specs[:-1], strict=True):
    if spec.is_live or spec.num_frames is None:
      raise UserError(
        f"--stream: {uri} has no known end, so it can only be the last "
        "of concat:"
      )
  return ConcatStream(parts, _join(specs))


def _join(specs):
  """What is known of streams that are played in turn."""
  counts = [spec.num_frames for spec in specs]
  defaults = {spec.default_classes for spec in specs} - {""}
  return specs[0]._replace(
    num_frames=None if None in counts else sum(counts),
    class_names=_unite([spec.class_names for spec in specs]),
    identity={"kind": "concat", "parts": [spec.identity for spec in specs]},
    # Groups of different streams may contradict each other.
    default_classes=defaults.pop() if len(defaults) == 1 else "",
    is_live=specs[-1].is_live,
  )


def _unite(class_names):
  """All names in the order in which they come up; none if there are none."""
  names = dict.fromkeys(itertools.chain.from_iterable(class_names))
  if len(names) > MAX_CLASSES:
    raise UserError(
      f"--stream: the streams of concat: have {len(names)} classes together, "
      f"more than {MAX_CLASSES}"
    )
  return tuple(names)


def _lookup(names, all_names):
  """Class of a part -> class of the whole, [256] uint8."""
  lookup = np.full(256, IGNORE, np.uint8)
  lookup[: len(names)] = [all_names.index(name) for name in names]
  return lookup


def _read_whole(part, skip):
  """As many samples as a stream promised, though some may not be there."""
  samples, num_frames = iter(part.read(skip)), part.spec.num_frames
  if num_frames is None:
    yield from samples
    return
  for t in range(skip, num_frames):
    yield next(samples, Sample(t, None, None, "the stream ends before it"))


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
    """Closes the source."""
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
  check_window(start_frame, every)
  num_frames = stream.spec.num_frames
  if num_frames is not None and 0 < num_frames <= start_frame:
    raise UserError(
      f"--start_frame={start_frame}: the stream has {num_frames} frames, "
      "counted from 0"
    )
  if (start_frame, every) == (0, 1):
    return stream
  return WindowStream(stream, start_frame, every)


def check_window(start_frame: int, every: int) -> None:
  """Raises a UserError that names the flag out of its range."""
  if not 0 <= start_frame <= _MOST_FRAMES:
    raise UserError(f"--start_frame={start_frame}: from 0 to {_MOST_FRAMES}")
  if not 1 <= every <= _MOST_FRAMES:
    raise UserError(f"--every={every}: from 1 to {_MOST_FRAMES}")
