"""Consistency and flicker pixel by pixel, of lists of lists."""


def measures(frames, flows, maps, num_classes):
  """(consistency, flicker) of a clip; None for what has nothing to compare."""
  both = [0] * num_classes
  either = [0] * num_classes
  followed = changed = still = 0
  for t in range(1, len(frames)):
    height, width = len(maps[t]), len(maps[t][0])
    for y in range(height):
      for x in range(width):
        now = maps[t][y][x]
        right, down = (round(float(v)) for v in flows[t][y][x])
        was_y, was_x = y + down, x + right
        if 0 <= was_y < height and 0 <= was_x < width and now != 255:
          before = maps[t - 1][was_y][was_x]
          pairs = zip(frames[t][y][x], frames[t - 1][was_y][was_x], strict=True)
          residue = sum(abs(int(a) - int(b)) for a, b in pairs) / 3
          if before != 255 and residue <= 32:
            followed += 1
            both[now] += now == before
            either[now] += 1
            either[before] += now != before
        before = maps[t - 1][y][x]
        if 255 not in (now, before) and _is_still(frames, t, y, x):
          still += 1
          changed += now != before
  ious = [a / b for a, b in zip(both[1:], either[1:], strict=True) if b]
  mean = sum(ious) / len(ious) if ious else 1.0
  return mean if followed else None, changed / still if still else None


def _is_still(frames, t, y, x):
  height, width = len(frames[t]), len(frames[t][0])
  around = [
    (i, j)
    for i in range(max(y - 1, 0), min(y + 2, height))
    for j in range(max(x - 1, 0), min(x + 2, width))
  ]
  return all(
    abs(int(a) - int(b)) <= 10
    for i, j in around
    for a, b in zip(frames[t][i][j], frames[t - 1][i][j], strict=True)
  )
