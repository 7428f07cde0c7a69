"""The host loop around a system, as short as it can be, and its scan."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ojd import distill
from ojd.types import Labels, StepInfo


class Played(NamedTuple):
  """What a system did on a stream."""

  state: Any  # after the last frame
  answers: np.ndarray  # [T, ...]
  infos: dict[int, StepInfo]  # by key frame

  @property
  def keys(self) -> list[int]:
    return list(self.infos)

  def of(self, name: str) -> list[float]:
    """A field of the infos, key frame by key frame."""
    return [float(getattr(info, name)) for info in self.infos.values()]


def labels_of(labels: Labels, t: int) -> Labels:
  return Labels(labels.classes[t], labels.weights[t])


def begin(system, frame, seed=0):
  return jax.jit(system.init)(jax.random.key(seed), frame)


def first(system, frames, labels):
  """-> the state after the key frame at 0, its answer and its info."""
  state = begin(system, frames[0])
  return jax.jit(system.learn)(state, frames[0], labels_of(labels, 0))


def scan(system, frames, labels, seed=0, **given):
  """-> the state at last, and the answers and infos of all frames."""
  state = system.init(jax.random.key(seed), frames[0])
  return distill.scan_stream(system, state, frames, labels, **given)


def compiled_scan(system, frames, labels):
  return jax.jit(lambda: scan(system, frames, labels))()


def play(system, frames, labels, *, seed=0, seen_fn=None, jit=True) -> Played:
  """Plays a stream; states are consumed, and each function compiles once.

  `seen_fn`: of (t, state), after each key frame; returns what goes on.
  """
  compiled = lambda function: jax.jit(function, donate_argnums=0)
  wrap = compiled if jit else lambda function: function
  learn, predict = wrap(system.learn), wrap(system.predict)
  state, answers, infos = begin(system, frames[0], seed), [], {}
  for t, frame in enumerate(frames):
    if int(system.next_key(state)) == t:
      state, answer, infos[t] = learn(state, frame, labels_of(labels, t))
      state = state if seen_fn is None else seen_fn(t, state)
    else:
      state, answer = predict(state, frame)
    answers.append(np.asarray(answer))
  if jit:
    assert learn._cache_size() <= 1 and predict._cache_size() <= 1
  return Played(state, np.stack(answers), infos)
