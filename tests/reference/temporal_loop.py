"""Consistency and flicker pixel by pixel, of arrays of integers."""

import numpy as np


def measures(frames, flows, maps, num_classes):
  """(consistency, flicker) of a clip in which both are somewhere asked for."""
  followed, changes = [], []
  for t in range(1, len(maps)):
    for y, x in np.ndindex(maps[t].shape):
      now, before = maps[t, y, x], maps[t - 1, y, x]
      around = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
      is_still = abs(frames[t][around] - frames[t - 1][around]).max() <= 10
      if is_still and 255 not in (now, before):
        changes.append(now != before)
      right, down = map(round, flows[t, y, x].tolist())
      was = y + down, x + right
      if min(was) >= 0 and was[0] < len(maps[t]) and was[1] < len(maps[t, 0]):
        residue = abs(frames[t, y, x] - frames[t - 1][was]).mean()
        if residue <= 32 and 255 not in (now, maps[t - 1][was]):
          followed.append((now, maps[t - 1][was]))
  ious = []
  for c in range(1, num_classes):
    is_c = np.array(followed) == c
    if is_c.any():
      ious.append(is_c.all(1).sum() / is_c.any(1).sum())
  return np.mean(ious), np.mean(changes)
