"""Teachers of one's own that behave as the first pixel of the frame says."""

import os
import sys
import time

import numpy as np

from ojd.types import Instances

NAMES = ("background", "red", "green")
# What the red of the first pixel asks for; anything else is answered.
HANG, RAISE, DIE, WRONG, INSTANCES, MODULES = range(1, 7)


def frame_that_says(what: int, height=16, width=20) -> np.ndarray:
  """Noise, and the wish in its first pixel."""
  rng = np.random.default_rng(what)
  frame = rng.integers(90, 160, (height, width, 3)).astype(np.uint8)
  frame[2:6, 3:9, 0] = 220
  frame[0, 0] = what, 0, 0
  return frame


class Obedient:
  """Red where it is red; `INSTANCES` answers with a box of green."""

  class_names = NAMES

  def __call__(self, frame):
    what = frame[0, 0, 0]
    if what == HANG:
      time.sleep(1000)
    if what == RAISE:
      raise RuntimeError("out of memory")
    if what == DIE:
      os._exit(7)
    if what == WRONG:
      return np.zeros((3, 3), np.uint8)
    if what == INSTANCES:
      masks = np.zeros((1, *frame.shape[:2]), bool)
      masks[0, 1:4, 2:7] = True
      return Instances([[1, 2, 4, 7]], [0.9], [2], masks)
    if what == MODULES:
      heavy = {"jax", "torch"} & sys.modules.keys()
      return np.full(frame.shape[:2], len(heavy), np.uint8)
    return (frame[..., 0] > 200).astype(np.uint8)


class Colours:
  """Knows the squares of `scenes`, which swap their colours halfway."""

  class_names = NAMES

  def __call__(self, frame):
    red = (frame[..., 0] == 220) & (frame[..., 1] == 30)
    green = (frame[..., 1] == 220) & (frame[..., 0] == 30)
    return (red + 2 * green).astype(np.uint8)


def dies_at_start():
  os._exit(3)


def raises_at_start():
  raise RuntimeError("no weights")
