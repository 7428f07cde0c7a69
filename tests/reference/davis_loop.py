"""DAVIS' measures pixel by pixel, as the benchmark describes them."""

import itertools
import math


def region(truth, answer):
  """IoU of two masks given as lists of rows."""
  both = either = 0
  for a, b in zip(
    itertools.chain(*truth), itertools.chain(*answer), strict=True
  ):
    both += bool(a and b)
    either += bool(a or b)
  return both / either if either else 1.0


def outline(mask):
  """(y, x) of the pixels that differ from one right, below or both."""
  height, width = len(mask), len(mask[0])
  found = []
  for y, x in itertools.product(range(height), range(width)):
    others = []
    if x + 1 < width:
      others.append(mask[y][x + 1])
    if y + 1 < height:
      others.append(mask[y + 1][x])
    if x + 1 < width and y + 1 < height:
      others.append(mask[y + 1][x + 1])
    if any(bool(other) != bool(mask[y][x]) for other in others):
      found.append((y, x))
  return found


def boundary(truth, answer):
  """F-measure of the two outlines, each pixel looked up among all others."""
  height, width = len(truth), len(truth[0])
  reach = math.ceil(0.008 * math.sqrt(height**2 + width**2))
  mine, theirs = outline(truth), outline(answer)
  if not mine and not theirs:
    return 1.0
  if not mine or not theirs:
    return 0.0
  precision = _share_near(theirs, mine, reach)
  recall = _share_near(mine, theirs, reach)
  if precision + recall == 0:
    return 0.0
  return 2 * precision * recall / (precision + recall)


def _share_near(pixels, others, reach):
  near = 0
  for y, x in pixels:
    near += any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in others)
  return near / len(pixels)
