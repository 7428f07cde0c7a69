"""Where the students of a simulated fleet learn."""

from collections.abc import Sequence

import numpy as np

from ojd.errors import UserError
from ojd.fleet.behaviour import Behaviour


class Devices:
  """Each student on its own, or in turn with others on a shared one.

  A shared device answers every frame of its streams first: learning gets what
  is left of it.
  """

  def __init__(
    self,
    behaviours: Sequence[Behaviour],
    which: Sequence[int],
    streams_per_device: int,
  ):
    """A UserError where a device cannot even answer all frames.

    Args:
      behaviours: some.
      which: of them each stream plays.
      streams_per_device: that share one; 0: none is shared.
    """
    self._per_device = streams_per_device
    if not streams_per_device:
      return
    load = np.array([predicting(behaviours[i]) for i in which])
    taken = np.add.reduceat(load, range(0, len(load), streams_per_device))
    if taken.max() >= 1:
      raise UserError(
        f"--streams_per_device={streams_per_device}: to answer every frame of "
        f"so many streams takes {taken.max():.2f} devices already, without "
        "learning"
      )
    self._slower = (1 / (1 - taken)).tolist()
    self._free = [0.0] * len(taken)

  def learn(self, stream: int, now: float, seconds: float) -> float:
    """When a lesson is over that could begin now; asked in order of time."""
    if not self._per_device:
      return now + seconds
    device = stream // self._per_device
    begin = max(now, self._free[device])
    self._free[device] = begin + seconds * self._slower[device]
    return self._free[device]


def predicting(behaviour: Behaviour) -> float:
  """Devices that answering every frame of a stream keeps busy."""
  return behaviour.fps * behaviour.ms_predict / 1e3
