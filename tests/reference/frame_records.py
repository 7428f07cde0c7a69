"""Frames as the loop hands them to what writes them."""

import numpy as np

from ojd.run import overlay


def make(t: int, classes: np.ndarray) -> overlay.FrameImages:
  """Frame t in one colour, on which the student answered `classes`."""
  frame = np.full((*classes.shape, 3), (40, 90, 140), np.uint8)
  caption = overlay.Caption(
    t=t,
    is_key=t % 8 == 0,
    num_updates=3,
    stride=8,
    miou=0.5,
    reference_title="truth",
    seconds=t / 25,
  )
  return overlay.FrameImages(frame, classes, classes, caption)


def at(images: overlay.FrameImages, t: int) -> overlay.FrameImages:
  """The same pictures as frame t."""
  return images._replace(caption=images.caption._replace(t=t))
