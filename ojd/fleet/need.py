"""Who needs the teacher most: a budget of its calls, shared between streams.

Calls are coins that come at a steady rate. Where more streams want one than
there are, those go first whose student is believed to have fallen below its
threshold, and among equals those that an answer is believed to help most, as a
thief gives what others have to who gains more by it (Ekya, NSDI 2022). Whoever
has waited for twice its fair share goes before all, the longest first, so that
nobody waits for ever.

What a student has come to since it was last taught nobody knows; it is believed
to fall as fast as it did between the two key frames before.
"""

from collections.abc import Mapping
from typing import NamedTuple

_BURST_SECONDS = 1.0  # of calls that may be saved up
_PATIENCE = 2.0  # fair shares after which a stream goes before all


class Standing(NamedTuple):
  """What is known of a stream's student; times in seconds."""

  accuracy: float | None = None  # when it was last taught; None: never
  taught_at: float = 0.0
  fall: float = 0.0  # of its accuracy in a second


def taught(
  standing: Standing, now: float, before: float, after: float
) -> Standing:
  """After a key frame: mean IoU with the teacher before and after updates."""
  fall, seconds = 0.0, now - standing.taught_at
  if standing.accuracy is not None and seconds > 0:
    fall = max(0.0, standing.accuracy - before) / seconds
  return Standing(after, now, fall)


class Wish(NamedTuple):
  """A stream that wants the teacher, since when, and what it would bring."""

  since: float  # seconds
  accuracy: float  # believed, now
  gain: float  # believed


def wish(standing: Standing, since: float, now: float) -> Wish:
  """What an answer would bring: what was lost since the last."""
  if standing.accuracy is None:
    return Wish(since, 0.0, 1.0)
  lost = standing.fall * max(now - standing.taught_at, 0.0)
  lost = min(lost, standing.accuracy)
  return Wish(since, standing.accuracy - lost, lost)


def in_order(
  wishes: Mapping[str, Wish], now: float, threshold: float, patience: float
) -> list[str]:
  """The streams that want the teacher, who needs it most first.

  Args:
    wishes: by the name of the stream, which decides between equals.
    now: in seconds.
    threshold: mean IoU below which a student is not good enough.
    patience: seconds after which a stream goes before all others.
  """

  def place(name):
    wanted = wishes[name]
    if now - wanted.since >= patience:
      return 0, wanted.since, 0.0, name
    is_good = wanted.accuracy >= threshold
    return 1 + is_good, -wanted.gain, wanted.since, name

  return sorted(wishes, key=place)


def patience(num_streams: int, rate: float) -> float:
  """Seconds that a stream waits before it goes before all others."""
  return _PATIENCE * num_streams / rate


class Coins(NamedTuple):
  """Calls that may be made now."""

  number: float
  at: float  # seconds


def begin(rate: float, now: float) -> Coins:
  """As many as may be saved up."""
  return Coins(_most(rate), now)


def earned(coins: Coins, rate: float, now: float) -> Coins:
  """With those that have come since; what is not spent in time is lost."""
  number = coins.number + rate * max(now - coins.at, 0.0)
  return Coins(min(number, _most(rate)), max(now, coins.at))


def _most(rate):
  # Beside the one that is there: none is lost while a frame is on its way.
  return 1.0 + _BURST_SECONDS * rate
