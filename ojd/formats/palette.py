"""The colours of classes, the same in every picture of a run."""

import functools
import itertools

import numpy as np

from ojd.types import IGNORE, MAX_CLASSES

IGNORED = (128, 128, 128)

# Distinct with any of the common kinds of colour blindness, over a grey street
# and over grass; the first ones are the farthest apart.
_FIRST = (
  (0, 0, 0),
  (240, 90, 25),  # vermilion
  (70, 180, 240),  # sky blue
  (0, 165, 115),  # bluish green
  (225, 125, 190),  # pink
  (245, 228, 66),  # yellow
  (0, 85, 200),  # blue
  (140, 25, 75),  # wine
  (175, 235, 165),  # pale green
  (190, 170, 255),  # lavender
  (150, 105, 45),  # brown
)
_LEVELS = range(0, 256, 15)  # of a channel, for the colours after the first
_LIGHTNESS = (0.38, 0.95)  # of those: neither a shadow nor a white wall
# RGB in 0..1 as a deuteranope sees it (Machado et al. 2009, full severity).
_DEUTERANOPIA = np.array(
  [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
  ]
)


def colors(num_classes: int) -> np.ndarray:
  """Colours of classes 0..num_classes-1; [C, 3] uint8, background is black.

  A class keeps its colour whatever the number of classes.
  """
  if not 1 <= num_classes <= MAX_CLASSES:
    raise ValueError(f"1 to {MAX_CLASSES} classes, not {num_classes}")
  return _all_colors()[:num_classes].copy()


@functools.cache
def table(num_classes: int) -> bytes:
  """A palette of 256 RGB entries for images that hold class maps.

  Ignored pixels, and values that are no class, are grey.
  """
  entries = np.full((IGNORE + 1, 3), IGNORED, np.uint8)
  entries[:num_classes] = colors(num_classes)
  return entries.tobytes()


@functools.cache
def _all_colors():
  """Each next colour is the one farthest from all before it."""
  grid = itertools.product(_LEVELS, _LEVELS, _LEVELS)
  candidates = np.array(list(grid), np.uint8)
  # White is text, grey is ignored: no class may look like them.
  taken = np.array([*_FIRST, IGNORED, (255, 255, 255)], np.uint8)
  seen, seen_taken = _as_seen(candidates), _as_seen(taken)
  is_usable = (seen[:, 0] > _LIGHTNESS[0]) & (seen[:, 0] < _LIGHTNESS[1])
  candidates, seen = candidates[is_usable], seen[is_usable]
  nearest = np.min([_distance(seen, x) for x in seen_taken], axis=0)
  chosen = list(_FIRST)
  while len(chosen) < MAX_CLASSES:
    best = int(np.argmax(nearest))
    chosen.append(tuple(candidates[best]))
    nearest = np.minimum(nearest, _distance(seen, seen[best]))
  return np.array(chosen, np.uint8)


def _as_seen(rgb):
  """Coordinates in which distances are those that eyes see; [N, 6].

  The opponent axes of the full eye, and of one without green cones.
  """
  linear = (rgb / 255.0) ** 2.2
  return np.hstack([_oklab(linear), _oklab(linear @ _DEUTERANOPIA.T)])


def _oklab(linear):
  """OKLab of linear RGB (Ottosson 2020); [N, 3]."""
  to_cones = np.array(
    [
      [0.4122, 0.5363, 0.0514],
      [0.2119, 0.6807, 0.1074],
      [0.0883, 0.2817, 0.6300],
    ]
  )
  to_lab = np.array(
    [
      [0.2105, 0.7936, -0.0041],
      [1.9780, -2.4286, 0.4506],
      [0.0259, 0.7828, -0.8087],
    ]
  )
  return np.cbrt(linear @ to_cones.T) @ to_lab.T


def _distance(seen, one):
  """The smaller of the distances with all cones and without the green."""
  squares = (seen - one) ** 2
  full = squares[..., :3].sum(axis=-1)
  reduced = squares[..., 3:].sum(axis=-1)
  return np.minimum(full, reduced)
