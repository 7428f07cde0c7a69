"""Instances -> class map and weights, a pixel at a time, in exact fractions."""

import fractions

import numpy as np

_MARGIN = fractions.Fraction(15, 100)  # of a box's side, on each side


def label_of(name, groups):
  """1 + the index of the group that holds the name; 0 where none does."""
  for i, group in enumerate(groups):
    if name in group:
      return i + 1
  return 0


def from_instances(instances, teacher_names, groups, height, width):
  """The paper's rules: class map [H, W] uint8, weights [H, W] float32.

  `groups` are names by student class, background left out.
  """
  classes = np.zeros((height, width), np.uint8)
  weights = np.ones((height, width), np.float32)
  for box, score, class_id, mask in zip(*instances, strict=True):
    label = label_of(teacher_names[class_id], groups)
    y0, x0, y1, x1 = (int(side) for side in box)
    if score < 0.5 or label == 0 or y1 <= y0 or x1 <= x0:
      continue
    for y in range(height):
      for x in range(width):
        if _is_near(y, y0, y1) and _is_near(x, x0, x1):
          weights[y, x] = 5
        if not (y0 <= y < y1 and x0 <= x < x1):
          continue
        is_object = _mask_at(mask, y, x, (y0, x0, y1, x1), (height, width))
        if is_object >= 0.5 and label > classes[y, x]:
          classes[y, x] = label
  return classes, weights


def _is_near(pixel, low, high):
  """Whether [pixel, pixel + 1] overlaps the side grown by the margin."""
  margin = _MARGIN * (high - low)
  return pixel + 1 > low - margin and pixel < high + margin


def _mask_at(mask, y, x, box, frame_size):
  """A mask of the frame as it is, one of the box bilinear at pixel centres."""
  if mask.shape == frame_size:
    return mask[y, x]
  near = []  # of its rows, of its columns
  for pixel, num, low, high in zip(
    (y, x), mask.shape, box[:2], box[2:], strict=True
  ):
    at = (pixel - low + 0.5) * num / (high - low) - 0.5
    at = min(max(at, 0.0), num - 1)  # beyond the outermost the border goes on
    near.append(np.maximum(0.0, 1 - abs(np.arange(num) - at)))
  return near[0] @ mask.astype(float) @ near[1]
