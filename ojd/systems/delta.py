"""A student that runs whole on some frames, and on others on what changed.

Two kinds of key frames are apart here. On those of the teacher the student
learns, when the system around which this one stands says so. On those of the
network it runs whole and leaves what the frames after it are told the changes
of: here they are called refreshes. A frame that was learnt from is one of them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from ojd import distill
from ojd.errors import UserError
from ojd.models.delta.convert import DELTA, MODEL, Cache, DeltaStudent
from ojd.models.student import Params

# Of a frame that is compared with another, pixels a side at most.
_LOOK = 16


class DeltaState(NamedTuple):
  """State of a system whose student is a `DeltaStudent`."""

  learner: Any  # of the system that learns
  delta: Params  # of the rules
  cache: Cache
  # [h, w, 3] float32, the last refresh, made small; None where no change is one
  look: jax.Array | None
  age: jax.Array  # int32, frames since; the interval: one is due
  gmac: jax.Array  # float32, of all answers so far, learning apart

  @property
  def params(self) -> Params:
    """What was learnt."""
    return self.learner.params

  @property
  def t(self) -> jax.Array:
    """The frame that comes next."""
    return self.learner.t


def delta(
  net: DeltaStudent,
  learner: distill.System,
  *,
  interval: ArrayLike = 8,
  threshold: ArrayLike | None = None,
  follows: bool = True,
  first: Params | None = None,
) -> distill.System:
  """Runs a converted student, whole on every interval-th frame.

  With an interval of 1, or with a rule that is exact, the answers are those of
  the learner.

  Args:
    net: the converted student of the learner.
    learner: who learns, and when; `jit.frozen` for nobody. Its answers have to
      be those of its student alone.
    interval: frames from one refresh to the next, at most.
    threshold: mean absolute difference in grey levels, 0 to 255, from the last
      refresh, both made small, above which a frame is one itself; None: frames
      are not compared.
    follows: whether the rules' parameters are made anew of the model when it
      has learnt, in the place of those that it was trained with. For pairs
      that is a decomposition a layer: of JITNet 46 ms on a core, where a frame
      of 96x160 takes 2.4 ms whole and 2.1 by its changes. It keeps answers
      right; on such a core it saves no time.
    first: the rules' parameters to begin with; None: made of the model.
  """
  if isinstance(interval, int) and interval < 1:
    raise UserError(f"interval={interval}: at least 1")
  if learner.answer is None:
    raise UserError("delta: the system does not answer with its student alone")

  make_look = (lambda frame: None) if threshold is None else make_small

  def init(rng_key, frame):
    """The learner begins as it would alone, so that both can be compared."""
    state = learner.init(rng_key, frame)
    model = learner.answering(state)
    weights = first
    if first is None:
      weights = net.begin(jax.random.fold_in(rng_key, 1), model)
    _, shapes = jax.eval_shape(
      net.apply_key, {MODEL: model, DELTA: weights}, frame
    )
    return DeltaState(
      learner=state,
      delta=jax.tree.map(jnp.array, weights),
      cache=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
      look=jax.tree.map(jnp.zeros_like, make_look(frame)),
      age=jnp.asarray(interval, jnp.int32),
      gmac=jnp.zeros((), jnp.float32),
    )

  def next_key(state):
    return learner.next_key(state.learner)

  def refreshed(state, cache, frame):
    return state._replace(
      cache=cache,
      look=make_look(frame),
      age=jnp.ones((), jnp.int32),
      gmac=state.gmac + jnp.float32(net.gmac(frame)),
    )

  def learn(state, frame, labels):
    learnt, classes, info = learner.learn(state.learner, frame, labels)
    params = {MODEL: learner.answering(learnt), DELTA: state.delta}
    if follows:
      params[DELTA] = lax.cond(
        info.num_updates > 0,
        lambda: net.refit(params),
        lambda: params[DELTA],
      )
    _, cache = net.apply_key(params, frame)
    state = state._replace(learner=learnt, delta=params[DELTA])
    return refreshed(state, cache, frame), classes, info

  def predict(state, frame):
    params = {MODEL: learner.answering(state.learner), DELTA: state.delta}
    is_due = state.age >= interval
    if threshold is not None:
      change = jnp.mean(jnp.abs(make_look(frame) - state.look))
      is_due |= change > threshold

    def refresh():
      logits, cache = net.apply_key(params, frame)
      return logits, refreshed(state, cache, frame)

    def go_on():
      between = net.apply_delta(params, state.cache, frame)
      after = state._replace(
        cache=between.cache, age=state.age + 1, gmac=state.gmac + between.gmac
      )
      return between.logits, after

    logits, state = lax.cond(is_due, refresh, go_on)
    passed = learner.skip(state.learner, 1)
    return state._replace(learner=passed), distill.classify(logits)

  return distill.System(
    *(init, next_key, learn, predict),
    answering=lambda state: learner.answering(state.learner),
    skip=lambda state, num: state._replace(
      learner=learner.skip(state.learner, num), age=state.age + num
    ),
    work=lambda state: state.gmac,
  )


def make_small(frame: jax.Array) -> jax.Array:
  """Means over blocks of a frame, [H, W, 3] -> [h, w, 3] float32.

  Rows and columns that fill no block are left out.
  """
  height, width, _ = frame.shape
  rows, columns = min(_LOOK, height), min(_LOOK, width)
  down, across = height // rows, width // columns
  cut = jnp.asarray(frame)[: rows * down, : columns * across]
  blocks = cut.astype(jnp.float32).reshape(rows, down, columns, across, 3)
  return blocks.mean((1, 3))
