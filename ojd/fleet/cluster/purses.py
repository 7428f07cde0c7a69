"""The teacher's calls, shared between streams on several machines."""

from collections.abc import Sequence
from typing import Any

import ray

from ojd.fleet.purse import WallPurse


class _Counting(WallPurse):
  """In its own process."""

  def counts(self) -> tuple[int, int]:
    """Granted, put off."""
    return self.num_granted, self.num_deferred


def start(rate: float, names: Sequence[str], threshold: float) -> Any:
  """An actor; where it is lost it begins anew, knowing nobody's need."""
  make = ray.remote(_Counting).options(
    num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=1
  )
  return make.remote(rate, list(names), threshold)


class RemotePurse:
  """The Purse of streams in this process."""

  def __init__(self, actor: Any):
    self._actor = actor

  def ask(self, name: str, seconds: float) -> bool:
    """Whether a stream may ask the teacher about its frame."""
    return ray.get(self._actor.ask.remote(name, seconds))

  def moved(self, name: str, line: dict[str, Any], seconds: float) -> None:
    """Tells of what was learnt; other frames change nobody's need."""
    if line.get("miou_after") is not None:
      told = {key: line[key] for key in ("miou_before", "miou_after")}
      self._actor.moved.remote(name, told, seconds)

  def left(self, name: str) -> None:
    """A stream that stops here may go on elsewhere: it stays known."""
