"""A system in two places: a server that learns, a device that answers.

The device answers with its own student; the classes of a key frame are the
server's. After a key frame the server sends its student, unless an update is in
flight, and the device has it from some later frame on. The driver, which knows
the network, sets that frame by `postpone`; by default it is the next one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ojd import distill, schedules
from ojd.models.student import Params


class StreamedState(NamedTuple):
  """State of both places."""

  server: Any  # of the system
  held: Params  # what the device answers with
  staged: Params  # what the server sent last
  due: jax.Array  # int32, the frame on which it is held; NEVER: it is
  interval: jax.Array  # int32, of the device, frames from key to key
  staged_interval: jax.Array  # int32, sent along
  last_key: jax.Array  # int32
  t: jax.Array  # int32, the frame that comes next

  @property
  def params(self) -> Params:
    """What was learned."""
    return self.server.params


def streamed(
  system: distill.System, first_interval: ArrayLike
) -> distill.System:
  """The system, with a separate device.

  Args:
    system: one whose serving can predict. first_interval: frames from the first
    key frame to the next, unless an update
      sets another one.
  """

  serving = system.serving

  def init(rng_key, frame):
    """The key is consumed."""
    server = system.init(rng_key, frame)
    copy = lambda: jax.tree.map(jnp.copy, serving.params(server))
    none = jnp.zeros((), jnp.int32)
    never = jnp.asarray(schedules.NEVER, jnp.int32)
    first = jnp.asarray(first_interval, jnp.int32)
    last = system.next_key(server) - first
    return StreamedState(
      *(server, copy(), copy(), never, first, first, last, none)
    )

  def next_key(state):
    state = _arrived(state)
    return jnp.maximum(_after(state.last_key, state.interval), state.t)

  def learn(state, frame, labels):
    state = _arrived(state)
    server, classes, info = system.learn(state.server, frame, labels)
    interval = system.next_key(server) - state.t
    is_free = state.due == schedules.NEVER
    sent = (serving.params(server), interval, state.t + 1)
    kept = (state.staged, state.staged_interval, state.due)
    staged, staged_interval, due = _pick(is_free, sent, kept)
    state = state._replace(
      server=server,
      staged=staged,
      staged_interval=staged_interval,
      due=due,
      last_key=state.t,
      t=state.t + 1,
    )
    return state, classes, info

  def predict(state, frame):
    state = _arrived(state)
    classes = serving.predict(state.held, frame)
    server = serving.skip(state.server, 1)
    return state._replace(server=server, t=state.t + 1), classes

  # Where the device is, and not the server, the answer is that of the device.
  own = distill.Serving(lambda state: _arrived(state).held)
  return distill.System(init, next_key, learn, predict, own)


def postpone(state: StreamedState, delay: ArrayLike) -> StreamedState:
  """Sets how many frames after the last key frame its update arrives."""
  return state._replace(due=state.last_key + jnp.asarray(delay, jnp.int32))


def _arrived(state):
  """The state with the update that has arrived by its next frame."""
  is_due = state.due <= state.t
  held, interval, due = _pick(
    is_due,
    (
      state.staged,
      state.staged_interval,
      jnp.asarray(schedules.NEVER, jnp.int32),
    ),
    (state.held, state.interval, state.due),
  )
  return state._replace(held=held, interval=interval, due=due)


def _after(key, interval):
  """The key frame so many frames later; an int32, however long that is."""
  room = schedules.NEVER - jnp.maximum(key, 0)
  return key + jnp.minimum(interval, room)


def _pick(condition, yes, no):
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
