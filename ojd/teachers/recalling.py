"""A Labeler that remembers: the teacher is asked only what nobody knows.

It is opened at the first such question, so that where everything is known it
is not needed at all.
"""

from collections.abc import Callable

from ojd.teachers.asking import Answer, Labeler
from ojd.types import Labels, Sample


class Recalling:
  """Answers from what was said before, and asks about the rest."""

  def __init__(
    self,
    recall: Callable[[int], Labels | None],
    open_labeler: Callable[[], Labeler],
  ):
    """Opens nothing yet.

    Args:
      recall: the labels of a frame, None where they are not known.
      open_labeler: makes the one that is asked then.
    """
    self._recall, self._open = recall, open_labeler
    self._inner: Labeler | None = None
    self._known: Answer | None = None

  @property
  def is_free(self) -> bool:
    return self._inner is None or self._inner.is_free

  def ask(self, sample: Sample) -> None:
    labels = self._recall(sample.t)
    if labels is not None:
      self._known = Answer(sample, labels, "", 0.0)
      return
    if self._inner is None:
      self._inner = self._open()
    self._inner.ask(sample)

  def answer(self, wait: bool) -> Answer | None:
    known, self._known = self._known, None
    if known is None and self._inner is not None:
      return self._inner.answer(wait)
    return known

  def tend(self) -> str:
    return self._inner.tend() if self._inner is not None else ""

  def close(self) -> None:
    self._known = None
    if self._inner is not None:
      self._inner.close()
