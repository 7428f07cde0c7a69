"""A student that runs whole on some frames, and on changes on the others.

There are two kinds of key frames. On the teacher's key frames the student
learns, by the system that this one wraps. On refreshes it runs whole and keeps
the activations to which the changes of later frames refer. The teacher's key
frames are refreshes, too.
"""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from ojd import distill
from ojd.errors import UserError
from ojd.models.delta import changes, conversion, files
from ojd.models.delta import skip as skip_lib
from ojd.models.delta.conversion import (
  DELTA,
  MODEL,
  Cache,
  DeltaStudent,
  convert,
)
from ojd.models.student import Params, Student
from ojd.specs import Bound, Range, extends, options_of
from ojd.systems.jit import MANY, frozen, jit, jit_plus
from ojd.tasks import segmentation
from ojd.updates.step import Tx

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
    """What was learned."""
    return self.learner.params

  @property
  def t(self) -> jax.Array:
    """The frame that comes next."""
    return self.learner.t


@extends(jit)
def delta(
  student: Student,
  tx: Tx,
  *,
  trained: files.Trained | None = None,
  base: Literal["jit", "jit_plus", "frozen"] = "jit",
  exact: bool = False,
  gamma: Annotated[int, Range(1)] = 4,
  policy: changes.Policy = "out",
  refresh_every: Annotated[int, MANY] = 3,
  refresh_change: Annotated[float, Range(0, 255)] | None = None,
  refit: bool | None = None,
  match_authors: bool = False,
  **options: Any,
) -> distill.System:
  """Delta Distillation: on most frames cheap functions of what changed.

  Habibian et al., "Delta Distillation for Efficient Video Processing", ECCV
  2022, with the intervals published for segmentation.

  Args:
    trained: changes that were trained beforehand; None: pairs of small
      convolutions, fitted to each layer.
    base: the method that learns on key frames.
    exact: whether the change has the layer's own kernel, so that answers are
      those of the base.
    gamma: how many times fewer channels the pair has than its layer.
    policy: channels of the pair follow those of the output (out) or the fewer
      of both sides (min).
    refresh_every: frames from one whole frame to the next.
    refresh_change: mean change since that frame, in grey levels, from which on
      a frame is whole as well; none: frames are not compared.
    refit: whether pairs are fitted again when their layers have learned; none:
      where nothing was trained beforehand.
    match_authors: whether biases count twice, as in the authors' code.
    **options: those of the base.
  """
  if trained is not None and trained.form == files.SKIP:
    raise UserError("--init: its gates are of --system=skip, not of delta")
  if exact:
    net = convert(student, changes.from_key(changes.same()))
  elif trained is None:
    inner = conversion.converted(conversion.trace(student))
    changes.check_gamma(gamma, policy, inner)
    pair = changes.pair(gamma=gamma, policy=policy, bias_twice=match_authors)
    net = convert(student, changes.rules(changes.where_it_saves(pair)))
  else:
    net = files.convert_trained(student, trained)
  learner = _learner(base, student, tx, options)
  refresh = dict(interval=refresh_every, threshold=refresh_change)
  return refreshed(net, learner, refit=refit, trained=trained, **refresh)


@extends(jit)
def skip(
  student: Student,
  tx: Tx,
  *,
  trained: files.Trained | None = None,
  base: Literal["jit", "jit_plus", "frozen"] = "jit",
  eps: Annotated[float, Range(0)] = 0.1,
  gate: Literal["input", "output"] = "input",
  memory: skip_lib.Memory = "reference",
  block: skip_lib.Block = 1,
  refresh_every: Annotated[int, MANY] = 4,
  refresh_change: Annotated[float, Range(0, 255)] | None = None,
  refit: bool | None = None,
  match_authors: bool = False,
  **options: Any,
) -> distill.System:
  """Skip-Convolutions: most frames are computed only where they changed.

  Habibian et al., "Skip-Convolutions for Efficient Video Processing", CVPR
  2021.

  Args:
    trained: gates that were trained beforehand; None: the norm of the change.
    base: the method that learns on key frames.
    eps: the change from which on an output is computed.
    gate: whether eps is a change of the inputs or, by the size of the
      weights, of the output.
    memory: what becomes of smaller changes: forget, sum, or reference, which
      compares with the input of the last computation.
    block: side of the blocks of pixels that are computed as one.
    refresh_every: frames from one whole frame to the next.
    refresh_change: as of `delta`.
    refit: whether gates are made again when their layers have learned; none:
      where nothing was trained beforehand.
    match_authors: whether biases count twice and a gate divides by the height
      rather than the channels, as in the authors' code; with memory=forget.
    **options: those of the base.
  """
  if trained is not None and trained.form != files.SKIP:
    raise UserError(
      f"--init: its {trained.form} are of --system=delta, not of skip"
    )
  if trained is None:
    norm = skip_lib.by_norm(
      eps, of_output=gate == "output", by_height=match_authors
    )
    rule = skip_lib.skip(
      norm, memory=memory, block=block, bias_twice=match_authors
    )
    net = convert(student, rule)
  else:
    net = files.convert_trained(student, trained)
  learner = _learner(base, student, tx, options)
  refresh = dict(interval=refresh_every, threshold=refresh_change)
  return refreshed(net, learner, refit=refit, trained=trained, **refresh)


def check(bound: Bound) -> None:
  """Refuses options of `delta` and `skip` that do not go together."""
  options = bound.options
  if options["base"] == "frozen":
    _refuse(bound, _OF_LEARNING, "base=frozen")
  if options.get("exact"):
    _refuse(bound, _OF_CHANGES["delta"], "exact=true")
  if options["norm"] != "frame":
    raise UserError(f"--system={bound}: between key frames norms are its own")
  is_authors = bound.name == "skip" and options["match_authors"]
  if is_authors and options["memory"] != "forget":
    raise UserError(f"--system={bound}: the authors' gates have memory=forget")


def check_trained(bound: Bound) -> None:
  """Refuses options that have no effect beside a file of trained changes."""
  _refuse(bound, _OF_CHANGES[bound.name], "--init with trained changes")


def _refuse(bound, names, reason):
  unused = [name for name in names if name in bound.given]
  if unused:
    raise UserError(f"--system={bound}: {reason} has no use for {unused[0]}")


_OF_LEARNING = [option.name for option in options_of(jit)]
# Options that say what the changes are, which a file of trained ones has.
_OF_CHANGES = {
  "delta": ("gamma", "policy", "match_authors"),
  "skip": ("eps", "gate", "memory", "block", "match_authors"),
}


def _learner(base, student, tx, options):
  if base == "frozen":
    return frozen(student, task=options["task"])
  return {"jit": jit, "jit_plus": jit_plus}[base](student, tx, **options)


def refreshed(
  net: DeltaStudent,
  learner: distill.System,
  *,
  interval: ArrayLike = 8,
  threshold: ArrayLike | None = None,
  refit: bool | None = None,
  trained: files.Trained | None = None,
) -> distill.System:
  """Runs a converted student, whole on every interval-th frame.

  With an interval of 1, or with a rule that is exact, the answers are those of
  the learner.

  Args:
    net: the converted student of the learner.
    learner: the system that learns; `frozen` for none. Its answers have to
      be those of its student alone.
    interval: frames from one refresh to the next, at most.
    threshold: mean absolute difference in grey levels, 0 to 255, from the last
      refresh, both made small, above which a frame is one itself; None: frames
      are not compared.
    refit: whether the rules' parameters are made again of the model when it
      has learned. For pairs that is a decomposition a layer: of JITNet 46 ms
      on a core, where a frame of 96x160 takes 2.4 ms whole and 2.1 by its
      changes. It keeps answers right; on such a core it saves no time. None:
      where nothing was trained.
    trained: the rules' parameters to begin with; None: made of the model.
  """
  first = None if trained is None else trained.delta
  follows = trained is None if refit is None else refit
  if isinstance(interval, int) and interval < 1:
    raise UserError(f"interval={interval}: at least 1")
  task, serving = segmentation(net.num_classes), learner.serving
  if serving is None or serving.predict is None:
    raise UserError("delta: the system does not answer with its student alone")

  make_look = (lambda frame: None) if threshold is None else make_small

  def init(rng_key, frame):
    """The learner begins as it would alone, so that both can be compared."""
    state = learner.init(rng_key, frame)
    model = serving.params(state)
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

  def seen_whole(state, cache, frame):
    return state._replace(
      cache=cache,
      look=make_look(frame),
      age=jnp.ones((), jnp.int32),
      gmac=state.gmac + jnp.float32(net.gmac(frame)),
    )

  def learn(state, frame, labels):
    learned, classes, info = learner.learn(state.learner, frame, labels)
    params = {MODEL: serving.params(learned), DELTA: state.delta}
    if follows:
      params[DELTA] = lax.cond(
        info.num_updates > 0,
        lambda: net.refit(params),
        lambda: params[DELTA],
      )
    _, cache = net.apply_key(params, frame)
    state = state._replace(learner=learned, delta=params[DELTA])
    return seen_whole(state, cache, frame), classes, info

  def predict(state, frame):
    params = {MODEL: serving.params(state.learner), DELTA: state.delta}
    is_due = state.age >= interval
    if threshold is not None:
      change = jnp.mean(jnp.abs(make_look(frame) - state.look))
      is_due |= change > threshold

    def refresh():
      logits, cache = net.apply_key(params, frame)
      return logits, seen_whole(state, cache, frame)

    def go_on():
      between = net.apply_delta(params, state.cache, frame)
      after = state._replace(
        cache=between.cache, age=state.age + 1, gmac=state.gmac + between.gmac
      )
      return between.logits, after

    logits, state = lax.cond(is_due, refresh, go_on)
    passed = serving.skip(state.learner, 1)
    return state._replace(learner=passed), task.decode(logits)

  own = distill.Serving(
    params=lambda state: serving.params(state.learner),
    skip=lambda state, num: state._replace(
      learner=serving.skip(state.learner, num), age=state.age + num
    ),
    gmac=lambda state: state.gmac,
  )
  return distill.System(init, next_key, learn, predict, own)


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
