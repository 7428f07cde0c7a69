"""A made-up video with exact labels: streets, sports, parks, nights, cuts."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ojd.errors import UserError
from ojd.streams import base
from ojd.streams.synthetic import paint, places
from ojd.types import Instances, Sample

VERSION = 1  # of the world: raised when any frame changes
DEFAULT_SIZE = (192, 320)
_OPTIONS = ("seed", "cuts", "cut_every", "num_frames", "fps", "cycle")


class Options(NamedTuple):
  """The address with every default filled in."""

  scene: str
  seed: int
  cuts: int  # 1 where the place changes
  cut_every: int  # frames
  num_frames: int
  fps: float
  cycle: int  # places before the first comes again; 0 where none does


class SyntheticStream:
  """A made-up video whose frame t depends on the address, t and size only."""

  def __init__(self, options: Options, height: int, width: int):
    """Prepares a stream; nothing is drawn before the first read."""
    self.options = options
    # Streams that never come back have the identity of before any could.
    named = _OPTIONS if options.cycle else _OPTIONS[:-1]
    address = "&".join(
      f"{name}={_text(getattr(options, name))}" for name in named
    )
    self.spec = base.StreamSpec(
      height=height,
      width=width,
      fps=options.fps,
      num_frames=options.num_frames,
      class_names=places.class_names(
        options.scene, has_cuts=bool(options.cuts)
      ),
      identity={
        "stream": f"synthetic:{options.scene}?{address}",
        "version": VERSION,
        "height": height,
        "width": width,
      },
    )

  def read(self, start: int = 0) -> Iterator[Sample]:
    """Yields samples t = start, start + 1, ... to the end."""
    for t in range(start, self.options.num_frames):
      pen, frame = self._picture(t)
      numbers = np.asarray(pen.image)[..., 3]
      yield Sample(t, frame, _classes(pen)[numbers])

  def instances(self, t: int) -> Instances:
    """Returns the exact visible instances of frame t."""
    return _instances(self._draw(self._check(t)))

  def annotated(self, t: int) -> tuple[np.ndarray, Instances]:
    """Returns frame t and its instances for the price of one drawing."""
    pen, frame = self._picture(self._check(t))
    return frame, _instances(pen)

  def _check(self, t):
    if not 0 <= t < self.options.num_frames:
      raise IndexError(f"frame {t} of {self.options.num_frames}")
    return t

  def _picture(self, t):
    key, time, dark = self._moment(t)
    pen = self._draw(t)
    return pen, paint.expose(pen, key, t, time, dark)

  def _moment(self, t: int):
    """Returns the place, the time in seconds and the darkness of frame t."""
    options = self.options
    turn = t // options.cut_every if options.cuts else 0
    turn = turn % options.cycle if options.cycle else turn
    key = places.key_at(options.scene, options.seed, turn)
    share = t / max(1, options.num_frames - 1)
    dark = places.darkness(key, share, has_cuts=bool(options.cuts))
    return key, t / options.fps, dark

  def _draw(self, t: int):
    key, time, dark = self._moment(t)
    size = (self.spec.width, self.spec.height)
    return paint.draw_things(key, time, dark, size, self.spec.class_names)


def _text(value: int | float) -> str:
  """Writes a number in full, 25.0 as 25, so that equal options look equal."""
  return str(int(value)) if value == int(value) else repr(value)


def _classes(pen) -> np.ndarray:
  """Returns the class of each number, [256] uint8."""
  table = np.zeros(256, np.uint8)
  table[: len(pen.things)] = [thing.class_id for thing in pen.things]
  return table


def _instances(pen) -> Instances:
  numbers = np.asarray(pen.image)[..., 3]
  classes = _classes(pen)
  found = [n for n in np.unique(numbers) if classes[n]]
  masks = numbers[None] == np.array(found, np.uint8)[:, None, None]
  boxes = [_box(mask) for mask in masks]
  return Instances(
    boxes=np.array(boxes, np.float32).reshape(-1, 4),
    scores=np.ones(len(found), np.float32),
    class_ids=classes[found].astype(np.int32),
    masks=masks,
  )


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
  rows = np.flatnonzero(mask.any(axis=1))
  columns = np.flatnonzero(mask.any(axis=0))
  return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def open_stream(
  address: base.Address, height: int | None, width: int | None
) -> SyntheticStream:
  """Opens `synthetic:SCENE?seed=0&cuts=0&cut_every=150&num_frames=600&fps=25`.

  `&cuts=1&cycle=3` comes back to the first place after the third.

  Args:
    address: taken apart; its path is the scene.
    height: of the frames, or None for the default.
    width: of the frames, or None for the default.
  """
  if address.path not in places.SCENES:
    known = ", ".join(places.SCENES)
    raise UserError(
      f"--stream: synthetic: has no scene {address.path!r}; it has {known}"
    )
  address.refuse_others(*_OPTIONS)
  always = address.path == "cuts"
  options = Options(
    scene=address.path,
    seed=_number(address, "seed", int, 0, 0),
    cuts=_number(address, "cuts", int, int(always), int(always), 1),
    cut_every=_number(address, "cut_every", int, 150, 1),
    num_frames=_number(address, "num_frames", int, 600, 1),
    fps=_number(address, "fps", float, 25.0, 1.0, 1000.0),
    cycle=_number(address, "cycle", int, 0, 0),
  )
  return SyntheticStream(
    options, height or DEFAULT_SIZE[0], width or DEFAULT_SIZE[1]
  )


def _number(address, name, kind, default, least, most=10**9):
  """Returns an option that must lie from least to most."""
  value = address.option(name, kind, default)
  if not least <= value <= most:
    raise UserError(
      f"--stream: synthetic: {name}={value} is not from {least} to {most}"
    )
  return value
