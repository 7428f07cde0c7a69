"""Streams small enough for a test, whose labels can be learnt by colour."""

import numpy as np

from ojd.streams.base import StreamSpec
from ojd.types import Labels, Sample

NAMES = ("background", "red", "green")


def coloured_squares(num_frames, height=16, width=20, seed=0):
  """Frames of a red and a green square on grey noise, and their labels.

  Halfway the two colours swap, so that a student has to learn again.
  """
  rng = np.random.default_rng(seed)
  frames = rng.integers(90, 160, (num_frames, height, width, 3))
  classes = np.zeros((num_frames, height, width), np.uint8)
  colours = np.array([[220, 30, 30], [30, 220, 30]])
  side = height // 3
  for t in range(num_frames):
    order = colours if t < num_frames // 2 else colours[::-1]
    for label, colour in enumerate(order, 1):
      y = (t + 5 * label) % (height - side)
      x = (2 * t + 9 * label) % (width - side)
      frames[t, y : y + side, x : x + side] = colour
      classes[t, y : y + side, x : x + side] = label
  weights = np.where(classes > 0, 5.0, 1.0).astype(np.float32)
  return frames.astype(np.uint8), Labels(classes, weights)


class Stream:
  """Coloured squares, 16x20; frames in `broken` cannot be read."""

  def __init__(self, num_frames=30, has_truth=True, broken=()):
    self.frames, self.labels = coloured_squares(num_frames)
    self.has_truth, self.broken = has_truth, broken
    names = NAMES if has_truth else ()
    self.spec = StreamSpec(16, 20, 25.0, num_frames, names, {"kind": "test"})

  def read(self, start=0):
    for t in range(start, len(self.frames)):
      if t in self.broken:
        yield Sample(t, None, None, "torn in two")
      else:
        truth = self.labels.classes[t] if self.has_truth else None
        yield Sample(t, self.frames[t], truth)
