"""A stream's way to its teacher, on which a purse may say no."""

import time
from typing import Any, Protocol

from ojd.teachers import labelers
from ojd.types import Sample


class Purse(Protocol):
  """Of `ojd.fleet.purse`, here or in another process."""

  def ask(self, name: str, seconds: float) -> bool:
    """Whether a stream may ask about its frame, `seconds` from its start."""
    ...

  def moved(self, name: str, line: dict[str, Any], seconds: float) -> None:
    """Takes the metrics of a frame; the next is at `seconds`."""
    ...

  def left(self, name: str) -> None:
    """The stream is over."""
    ...


class Gated:
  """A Labeler who asks another one where the purse lets it."""

  def __init__(
    self, labeler: labelers.Labeler, purse: Purse, name: str, fps: float
  ):
    """Takes a labeler.

    Args:
      labeler: who asks; closed with this one.
      purse: decides.
      name: of the stream.
      fps: its frames a second.
    """
    self._labeler, self._purse = labeler, purse
    self._name, self._fps = name, fps
    self.is_free = labeler.is_free
    self._waited, self._refused = 0.0, None

  def ask(self, sample: Sample) -> None:
    begun = time.perf_counter()
    is_granted = self._purse.ask(self._name, sample.t / self._fps)
    self._waited = time.perf_counter() - begun
    self._refused = None if is_granted else sample
    if is_granted:
      self._labeler.ask(sample)

  def answer(self, wait: bool) -> labelers.Answer | None:
    if self._refused is not None:
      sample, self._refused = self._refused, None
      problem = labelers.DEFERRED
      return labelers.Answer(sample, None, problem, 0.0, self._waited)
    answer = self._labeler.answer(wait)
    if answer is None:
      return None
    return answer._replace(waited=answer.waited + self._waited)

  def poll(self) -> str:
    return self._labeler.poll()

  def close(self) -> None:
    self._labeler.close()
