"""How long a device waits before it tries again to reach its server."""

import random
from collections.abc import Iterator

FIRST, LONGEST = 0.25, 10.0  # seconds


def pauses(
  rng: random.Random, first: float = FIRST, longest: float = LONGEST
) -> Iterator[float]:
  """Twice as long each time; somewhat random, so that not all come at once."""
  pause = first
  while True:
    yield pause * rng.uniform(0.5, 1.0)
    pause = min(longest, 2 * pause)
