"""A slot of an engine, in the place of an executor for one run."""

from collections.abc import Callable

import jax
import numpy as np

from ojd.distill import State
from ojd.fleet.engine import Engine
from ojd.types import Labels, StepInfo


class Slot:
  """The system of one run, whose state is kept by an engine.

  It has the methods of `ojd.run.executor.Executor`.
  """

  def __init__(
    self,
    engine: Engine,
    slot: int,
    first: Callable[[], State],
    next_key: Callable[[State], int],
  ):
    """Names the slot.

    Args:
      engine: that keeps the state.
      slot: which one; no other run has it.
      first: makes the state that the run begins with.
      next_key: of a state.
    """
    self._engine, self._slot = engine, slot
    self._first, self._next_key_of = first, next_key
    self._next_key = 0

  def begin(self, state: State | None = None) -> None:
    """Goes on from a state; None: from a new one."""
    self.replace(self._first() if state is None else state)

  @property
  def state(self) -> State:
    """A copy of the engine's."""
    return self._engine.read(self._slot)

  def replace(self, state: State) -> None:
    """Puts another state in the place of this one."""
    self._engine.write(self._slot, state)
    self._next_key = self._next_key_of(state)

  def next_key(self) -> int:
    """The next frame that the teacher must see."""
    return self._next_key

  def learn(
    self, frame: np.ndarray, labels: Labels
  ) -> tuple[np.ndarray, StepInfo]:
    """Learns from a key frame; its answer, and the step in plain numbers."""
    classes, self._next_key, info = self._engine.learn(
      self._slot, frame, labels
    )
    return np.asarray(classes), jax.tree.map(
      lambda x: np.asarray(x).item(), info
    )

  def predict(self, frame: np.ndarray) -> np.ndarray:
    """The answer to a frame."""
    classes, self._next_key = self._engine.predict(self._slot, frame)
    return np.asarray(classes)

  def predict_readonly(self, frame: np.ndarray) -> np.ndarray:
    """The answer to a frame; the state stays as it is."""
    kept = self._engine.read(self._slot)
    classes, _ = self._engine.predict(self._slot, frame)
    self._engine.write(self._slot, kept)
    return np.asarray(classes)

  def warm_up_readonly(self) -> None:
    """The engine has compiled all."""
