"""Instances -> class map and weights, one after the other."""

import numpy as np
import torch


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
  y, x = np.arange(height)[:, None], np.arange(width)
  for box, score, class_id, mask in zip(*instances, strict=True):
    label = label_of(teacher_names[class_id], groups)
    whole = [int(side) for side in box]
    y0, x0, y1, x1 = np.clip(whole, 0, [height, width] * 2).tolist()
    if score < 0.5 or label == 0 or y1 <= y0 or x1 <= x0:
      continue
    weights[_is_near(y, y0, y1) & _is_near(x, x0, x1)] = 5
    if mask.shape != (height, width):
      mask = _paste(mask, whole, height, width)
    is_object = (y0 <= y) & (y < y1) & (x0 <= x) & (x < x1) & (mask >= 0.5)
    classes[is_object] = np.maximum(classes[is_object], label)
  return classes, weights


def _is_near(pixel, low, high):
  """Whether [pixel, pixel + 1] overlaps the side grown by 15% at each end."""
  margin = 15 * (high - low)
  return (100 * (pixel + 1) > 100 * low - margin) & (
    100 * pixel < 100 * high + margin
  )


def _paste(mask, box, height, width):
  """The mask of a box that lies at most a frame's side beyond the frame."""
  top, left, bottom, right = box
  enlarged = torch.nn.functional.interpolate(
    torch.tensor(mask[None, None], dtype=torch.float64),
    (bottom - top, right - left),
    mode="bilinear",
  )
  canvas = np.zeros((3 * height, 3 * width))
  place = np.s_[height + top : height + bottom, width + left : width + right]
  canvas[place] = enlarged[0, 0]
  return canvas[height : 2 * height, width : 2 * width]
