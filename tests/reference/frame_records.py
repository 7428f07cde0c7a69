"""Frames as the loop hands them to what writes them."""

import numpy as np

from ojd.run import overlay


def make(t: int, classes: np.ndarray) -> overlay.FrameImages:
  """Frame t in one colour, on which the student answered `classes`."""
  frame = np.full((*classes.shape, 3), (40, 90, 140), np.uint8)
  caption = overlay.Caption(t, t % 8 == 0, 3, 8, 0.5, "truth", t / 25)
  return overlay.FrameImages(frame, classes, classes, caption)
