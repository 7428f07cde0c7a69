"""Consistency and flicker pixel by pixel."""

import numpy as np


def measures(frames, flows, maps, num_classes):
  """(consistency, flicker) of a clip; None for what has nothing to compare."""
  both, either = np.zeros(num_classes), np.zeros(num_classes)
  change, still = 0, 0
  frames, (height, width) = frames.astype(int), maps[0].shape
  for t in range(1, len(frames)):
    moved = np.abs(frames[t] - frames[t - 1]).max(-1)
    for y, x in np.ndindex(height, width):
      now, before = maps[t][y, x], maps[t - 1][y, x]
      around = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
      if 255 not in (now, before) and moved[around].max() <= 10:
        still += 1
        change += now != before
      right, down = (round(float(v)) for v in flows[t][y, x])
      was = y + down, x + right
      if not (0 <= was[0] < height and 0 <= was[1] < width):
        continue
      before = maps[t - 1][was]
      residue = np.abs(frames[t][y, x] - frames[t - 1][was]).mean()
      if 255 not in (now, before) and residue <= 32:
        both[now] += now == before
        either[now] += 1
        either[before] += now != before
  seen = either[1:] > 0
  mean = (both[1:][seen] / either[1:][seen]).mean() if seen.any() else 1.0
  return mean if either.any() else None, change / still if still else None
