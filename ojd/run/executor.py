"""A compiled system and its state; a run keeps its state here."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ojd import distill
from ojd.run import compilation
from ojd.types import Labels, StepInfo


class Executor:
  """Runs a compiled system on frames of one size.

  The constructor compiles everything. A fleet's slot has the same methods and
  keeps its state in a batch.
  """

  def __init__(
    self,
    system: distill.System,
    height: int,
    width: int,
    seed: int,
    *,
    with_readonly: bool = False,
  ):
    """Compiles the four functions.

    Args:
      system: any.
      height: of the frames.
      width: of the frames.
      seed: of the initial state.
      with_readonly: whether to compile a program for `predict_readonly`.
    """
    frame = jax.ShapeDtypeStruct((height, width, 3), np.uint8)
    classes = jax.ShapeDtypeStruct((height, width), np.uint8)
    weights = jax.ShapeDtypeStruct((height, width), np.float32)

    def init():
      # The initial parameters do not depend on the content of the frame.
      blank = np.zeros(frame.shape, np.uint8)
      return system.init(jax.random.key(seed), blank)

    def learn(state, frame, labels):
      state, answer, info = system.learn(state, frame, labels)
      return state, answer, info, system.next_key(state)

    def predict(state, frame):
      state, answer = system.predict(state, frame)
      return state, answer, system.next_key(state)

    state = jax.eval_shape(init)
    # Both donate the state, so that constant parts are not copied.
    learn = jax.jit(learn, donate_argnums=0)
    predict = jax.jit(predict, donate_argnums=0)
    self._readonly = None
    if with_readonly:
      readonly = jax.jit(lambda state, frame: system.predict(state, frame)[1])
      self._readonly = readonly.lower(state, frame).compile()
    self._init = jax.jit(init).lower().compile()
    self._next_key = jax.jit(system.next_key).lower(state).compile()
    labels = Labels(classes, weights)
    self._learn = learn.lower(state, frame, labels).compile()
    self._predict = predict.lower(state, frame).compile()
    self._state: distill.State | None = None
    self._upcoming: int | None = None  # of `next_key`; None: unknown
    compilation.return_memory()

  def first_state(self) -> distill.State:
    """Makes the initial state of a run."""
    return jax.block_until_ready(self._init())

  def begin(self, state: distill.State | None = None) -> None:
    """Starts from a state, which is consumed; None: from a new one."""
    self.replace(self.first_state() if state is None else state)

  @property
  def state(self) -> distill.State:
    """The state; valid until the next `learn`, `predict` or `replace`."""
    return self._state

  def replace(self, state: distill.State) -> None:
    """Replaces the state."""
    self._state, self._upcoming = state, None

  def next_key(self) -> int:
    """The next frame that the teacher must see."""
    if self._upcoming is None:
      self._upcoming = int(self._next_key(self._state))
    return self._upcoming

  def learn(
    self, frame: np.ndarray, labels: Labels
  ) -> tuple[np.ndarray, StepInfo]:
    """Learns from a key frame; returns the answer and the step as numbers."""
    self._state, answer, info, upcoming = jax.block_until_ready(
      self._learn(self._state, frame, labels)
    )
    self._upcoming = int(upcoming)
    return np.asarray(answer), jax.tree.map(
      lambda x: np.asarray(x).item(), info
    )

  def predict(self, frame: np.ndarray) -> np.ndarray:
    """Answers a frame."""
    # Only the frame and the answer may cross between host and device.
    with jax.transfer_guard("disallow"):
      frame = jax.device_put(frame)
      self._state, *result = self._predict(self._state, frame)
      answer, upcoming = jax.device_get(result)
    self._upcoming = int(upcoming)
    return answer

  def predict_readonly(self, frame: np.ndarray) -> np.ndarray:
    """Answers a frame and leaves the state unchanged.

    Without `with_readonly` the program of `predict` runs on a copy of the
    state. The copy takes half a millisecond; a program of its own takes a
    second to compile.
    """
    if self._readonly is not None:
      return np.asarray(self._readonly(self._state, frame))
    return np.asarray(self._predict(_copy(self._state), frame)[1])

  def warm_up_readonly(self) -> None:
    """Compiles the copy that `predict_readonly` uses, if it uses one."""
    if self._readonly is None:
      jax.block_until_ready(_copy(self._state))


@jax.jit
def _copy(state: Any) -> Any:
  return jax.tree.map(jnp.copy, state)
