"""The server's count of a device's frames, by the times that the device tells.

Frame t of a stream is seen at t / fps. A clock that jumps back, or farther
ahead than a device may be silent, is taken to have been set anew: its frame is
the one after the latest.
"""

from typing import NamedTuple

MAX_SKIP = 1 << 20  # frames; 12 hours at 24 a second


class Clock(NamedTuple):
  """How many frames have passed, and what the device's count began with."""

  next_t: int = 0
  origin: int = 0  # the device's index of frame 0
  num_jumps: int = 0


class Tick(NamedTuple):
  """A frame comes."""

  clock: Clock  # after it
  t: int
  num_skipped: int  # frames before it that only the device saw


def tick(clock: Clock, time: float, fps: float) -> Tick:
  """Counts the frame that a device saw at `time`, in finite seconds."""
  index = round(time * fps)
  num_skipped = index - clock.origin - clock.next_t
  if 0 <= num_skipped <= MAX_SKIP:
    t = clock.next_t + num_skipped
    return Tick(clock._replace(next_t=t + 1), t, num_skipped)
  t = clock.next_t
  return Tick(Clock(t + 1, index - t, clock.num_jumps + 1), t, 0)
