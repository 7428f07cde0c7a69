"""Gives the teacher's calls to the streams that need them most.

By the streams' own time, where all of them are recorded: a question is decided
when every other stream has come as far, so that the same streams give the same
decisions on any machine. By the clock on the wall where some are live: at once,
among those that want the teacher now.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from ojd.fleet import need
from ojd.fleet.need import Standing, Wish

_FORGET_SECONDS = 2.0  # a live stream that wants the teacher asks every frame


class _Purse:
  """What both have: coins, and what is known of the streams."""

  def __init__(self, rate: float, names: Iterable[str], threshold: float):
    """Nobody has been taught.

    Args:
      rate: calls a second.
      names: of the streams.
      threshold: mean IoU below which a student is not good enough.
    """
    self._rate, self._threshold = rate, threshold
    self._standings = {name: Standing() for name in names}
    self._since: dict[str, float] = {}  # when wishes not granted began
    self._coins: need.Coins | None = None
    self._changed = threading.Condition()
    self.num_granted = self.num_deferred = 0

  def _decide(self, names, now):
    """Those of the streams, which all want the teacher, that have it."""
    if self._coins is None:
      self._coins = need.begin(self._rate, now)
    self._coins = need.earned(self._coins, self._rate, now)
    wishes = {name: self._wish(name, now) for name in names}
    patience = need.patience(len(self._standings), self._rate)
    order = need.in_order(wishes, now, self._threshold, patience)
    return order[: int(self._coins.number)]

  def _wish(self, name, now) -> Wish:
    since = self._since.setdefault(name, now)
    return need.wish(self._standings[name], since, now)

  def _grant(self, name):
    self._coins = self._coins._replace(number=self._coins.number - 1)
    self._since.pop(name, None)
    self.num_granted += 1

  def _note(self, name, line, now):
    if line.get("miou_after") is not None:
      self._standings[name] = need.taught(
        *(self._standings[name], now, line["miou_before"], line["miou_after"])
      )

  def left(self, name: str) -> None:
    """A stream is over; the others share what it had."""
    with self._changed:
      self._standings.pop(name, None)
      self._since.pop(name, None)
      self._changed.notify_all()


class WallPurse(_Purse):
  """By a clock: nobody waits for a decision."""

  def __init__(
    self,
    rate: float,
    names: Iterable[str],
    threshold: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    super().__init__(rate, names, threshold)
    self._clock = clock
    self._asked: dict[str, float] = {}  # when wishes were last heard of

  def ask(self, name: str, seconds: float) -> bool:
    """Whether a stream may ask the teacher about its frame."""
    del seconds  # of the stream
    with self._changed:
      now = self._clock()
      self._asked[name] = now
      for other, heard in list(self._asked.items()):
        if now - heard > _FORGET_SECONDS or other not in self._standings:
          del self._asked[other]
          self._since.pop(other, None)
      is_granted = name in self._decide(self._asked, now)
      if is_granted:
        self._grant(name)
        del self._asked[name]
      else:
        self.num_deferred += 1
      return is_granted

  def moved(self, name: str, line: dict[str, Any], seconds: float) -> None:
    """A stream is through with a frame, of which this is the line."""
    del seconds
    with self._changed:
      if name in self._standings:
        self._note(name, line, self._clock())


class StreamPurse(_Purse):
  """By the streams' time: a decision waits until all have come as far."""

  def __init__(self, rate: float, names: Iterable[str], threshold: float):
    super().__init__(rate, names, threshold)
    self._at = dict.fromkeys(self._standings, 0.0)  # time of each one's frame
    self._wants: set[str] = set()
    self._decided: dict[str, bool] = {}

  def ask(self, name: str, seconds: float) -> bool:
    """Whether a stream may ask the teacher about its frame."""
    with self._changed:
      self._at[name] = seconds
      self._wants.add(name)
      self._decide_all()
      while name not in self._decided:
        self._changed.wait()
      return self._decided.pop(name)

  def moved(self, name: str, line: dict[str, Any], seconds: float) -> None:
    """A stream is through with a frame; its next one is at `seconds`."""
    with self._changed:
      self._note(name, line, self._at[name])
      self._at[name] = seconds
      self._decide_all()

  def left(self, name: str) -> None:
    super().left(name)
    with self._changed:
      self._at.pop(name, None)
      self._decide_all()

  def _decide_all(self):
    """Decides among those that are the farthest behind, if all of them ask."""
    if not self._wants:
      return
    now = min(self._at.values())
    behind = {name for name, at in self._at.items() if at == now}
    if not behind <= self._wants:
      return  # somebody is still on the way here
    granted = self._decide(behind, now)
    for name in behind:
      self._wants.discard(name)
      self._decided[name] = name in granted
      if name in granted:
        self._grant(name)
      else:
        self.num_deferred += 1
    self._changed.notify_all()
