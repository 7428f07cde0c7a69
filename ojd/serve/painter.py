"""The picture of the newest frame, painted once for all viewers.

A task of the server's event loop paints in a thread, only while somebody is
watching, a few times a second and for a third of its time at most.
"""

import asyncio
import contextlib
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from ojd.run import overlay
from ojd.serve.display import Latest

_LOG = logging.getLogger(__name__)
_MAX_SIDE = 640  # of a panel; a larger frame is seen at a fraction of its size
_QUALITY = 80
_SECONDS = 1 / 15  # from one picture to the next, at least
_SHARE = 1 / 3  # of the time at most


class Picture(NamedTuple):
  """A painted frame."""

  number: int  # of `Latest`
  jpeg: bytes


class Painter:
  """Paints while somebody is in `watching`."""

  def __init__(self, latest_fn: Callable[[], Latest]):
    self._latest_fn = latest_fn
    self._is_over, self._num_watching = False, 0
    self._picture: Picture | None = None
    self._changed = asyncio.Condition()  # there is a picture, or it is over
    self._is_wanted = asyncio.Event()  # somebody watches, or it is closing
    self._ending = asyncio.Event()

  @contextlib.contextmanager
  def watching(self) -> Iterator[None]:
    """Keeps the painter at work until the end of the block."""
    self._num_watching += 1
    self._is_wanted.set()
    try:
      yield
    finally:
      self._num_watching -= 1
      if not self._num_watching and not self._ending.is_set():
        self._is_wanted.clear()

  async def wait(self, number: int, seconds: float) -> Picture | None:
    """The picture of this frame or a later one; None where none comes.

    Once the painter is closed that is the last one, or None.
    """
    is_there = lambda: self._picture and self._picture.number >= number
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(seconds), self._changed:
        await self._changed.wait_for(lambda: is_there() or self._is_over)
    return self._picture if is_there() else None

  @property
  def is_over(self) -> bool:
    """Whether no picture will come any more."""
    return self._is_over

  def close(self) -> None:
    """Paints the last frame for the remaining viewers, and ends."""
    self._ending.set()
    self._is_wanted.set()

  async def work(self) -> None:
    """Paints until `close`."""
    try:
      while not self._ending.is_set():
        await self._is_wanted.wait()
        start = time.monotonic()
        await self._paint_newest()
        spent = time.monotonic() - start
        rest = max(_SECONDS, spent / _SHARE) - spent
        with contextlib.suppress(TimeoutError):
          await asyncio.wait_for(self._ending.wait(), rest)
      await self._paint_newest()  # the last
    except Exception as error:
      # Those who look on see no more pictures; the run goes on.
      _LOG.warning("the live view cannot paint: %s", error)
    finally:
      async with self._changed:
        self._is_over = True
        self._changed.notify_all()

  async def _paint_newest(self):
    latest, old = self._latest_fn(), self._picture
    is_old = old is not None and old.number == latest.number
    if not self._num_watching or latest.record is None or is_old:
      return
    jpeg = await asyncio.to_thread(paint, latest.record, latest.class_names)
    async with self._changed:
      self._picture = Picture(latest.number, jpeg)
      self._changed.notify_all()


def paint(record: overlay.FrameImages, class_names) -> bytes:
  """The overlay of a record as JPEG, small enough for a screen."""
  picture = overlay.paint(_shrink(record), class_names)
  file = io.BytesIO()
  Image.fromarray(picture).save(file, "jpeg", quality=_QUALITY)
  return file.getvalue()


def _shrink(record):
  """Every k-th pixel of class maps, averages of the frame's."""
  k = math.ceil(max(record.classes.shape) / _MAX_SIDE)
  if k == 1:
    return record
  frame = Image.fromarray(record.frame).reduce(k)
  reference = record.reference
  return record._replace(
    frame=np.asarray(frame),
    reference=None if reference is None else reference[::k, ::k].copy(),
    classes=record.classes[::k, ::k].copy(),
  )
