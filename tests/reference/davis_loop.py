"""DAVIS' measures pixel by pixel, as the benchmark describes them."""

import itertools
import math


def region(truth, answer):
  """IoU of two masks given as lists of rows."""
  both = either = 0
  for row, other in zip(truth, answer, strict=True):
    for a, b in zip(row, other, strict=True):
      both += bool(a and b)
      either += bool(a or b)
  return both / either if either else 1.0


def outline(mask):
  """(y, x) of the pixels that differ from one right, below or both."""
  height, width = len(mask), len(mask[0])
  found = []
  for y, x in itertools.product(range(height), range(width)):
    for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
      if v < height and u < width and bool(mask[v][u]) != bool(mask[y][x]):
        found.append((y, x))
        break
  return found


def boundary(truth, answer):
  """F-measure of the two outlines, each pixel looked up among all others."""
  height, width = len(truth), len(truth[0])
  reach = math.ceil(0.008 * math.sqrt(height**2 + width**2))
  mine, theirs = outline(truth), outline(answer)
  if not mine or not theirs:
    return float(mine == theirs)

  def share_near(pixels, others):
    near = 0
    for y, x in pixels:
      near += any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in others)
    return near / len(pixels)

  precision, recall = share_near(theirs, mine), share_near(mine, theirs)
  total = precision + recall
  return 2 * precision * recall / total if total else 0.0
