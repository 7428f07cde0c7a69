"""One-shot video object segmentation: one frame is trained on, 29 follow.

The student is trained on the mask of every 30th frame and answers the next 29.
It differs from `jit` with a fixed stride of 30 in that a round has a fixed
length, sees the frame in six forms and may begin from the parent each time.
"""

import functools
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from ojd import distill, losses, schedules
from ojd.errors import UserError
from ojd.models.student import Params, Student
from ojd.specs import Range
from ojd.systems.jit import MANY, look
from ojd.tasks import segmentation
from ojd.types import Frame, Labels, StepInfo

INTERVAL = 30  # frames
SCALES = (0.5, 0.8, 1.0)  # of the frame's sides; each also mirrored
_LEAST_SIDE = 16  # pixels, of a scaled frame


class OsvosState(NamedTuple):
  """State of `osvos`."""

  params: Params
  parent: Params | tuple[()]  # the first parameters; empty in mode A
  schedule: schedules.BackoffState
  t: jax.Array  # int32, the frame that comes next


class _Round(NamedTuple):
  params: Params
  opt_state: optax.OptState
  num_updates: jax.Array  # int32
  num_refused: jax.Array  # int32, gradients that were not finite
  grad_norm: jax.Array  # float32, of the last update


def osvos(
  student: Student,
  tx: optax.GradientTransformation,
  *,
  mode: Literal["A", "B"] = "B",
  interval: Annotated[ArrayLike, MANY] = INTERVAL,
  num_passes: Annotated[ArrayLike, Range(0, 10**6)] = 8,
) -> distill.System:
  """One-shot video object segmentation: trained on one frame of each interval.

  Caelles et al., "One-Shot Video Object Segmentation", CVPR 2017. Published
  training rounds take half a minute of a GPU; `num_passes` over the six forms
  of a frame is what a CPU can do: 48 updates.

  Args:
    student: init and apply of one frame, of any size; of two classes.
    tx: the gradient step; it starts anew with each round.
    mode: where a training round begins: A, with the parameters of the round
      before; B, with the first ones, those of the parent network.
    interval: frames from one training round to the next.
    num_passes: passes over the six forms of a key frame.
  """
  if student.num_classes != 2:
    raise UserError(
      f"--system=osvos segments one class, not {student.num_classes - 1}; "
      "--classes=NAME or --classes=NAME=ONE,OTHER makes one"
    )
  task = segmentation(student.num_classes)
  schedule = schedules.fixed(interval)

  def init(rng_key, frame):
    """The key is consumed."""
    params = student.init(rng_key, frame)
    parent = jax.tree.map(jnp.copy, params) if mode == "B" else ()
    t = jnp.zeros((), jnp.int32)
    return OsvosState(params, parent, schedule.init(), t)

  def next_key(state):
    return schedule.next_key(state.schedule, state.t)

  def learn(state, frame, labels):
    start = state.parent if mode == "B" else state.params
    before = look(student, task, state.params, frame, labels)
    training = _train(student, tx, start, frame, labels, num_passes)
    after = look(student, task, training.params, frame, labels)
    # A round that diverges is undone.
    is_good = jnp.isfinite(after.loss)
    pick = functools.partial(jnp.where, is_good)
    params, kept = jax.tree.map(
      pick, (training.params, after), (state.params, before)
    )
    undone = jnp.where(is_good, 0, training.num_updates)
    info = StepInfo(
      is_key=jnp.ones((), bool),
      stride=schedule.stride(state.schedule),
      num_updates=training.num_updates - undone,
      num_rolled_back=training.num_refused + undone,
      miou_before=before.miou,
      miou_after=kept.miou,
      loss=kept.loss,
      grad_norm=training.grad_norm,
    )
    return state._replace(params=params, t=state.t + 1), kept.answer, info

  def predict(state, frame):
    classes = task.decode(student.apply(state.params, frame))
    return state._replace(t=state.t + 1), classes

  serving = distill.Serving(lambda state: state.params)
  return distill.System(init, next_key, learn, predict, serving)


def _train(student, tx, params, frame, labels, num_passes) -> _Round:
  """`num_passes` times each of the six forms of a frame, one an update."""
  scaled = [scale(frame, labels, s) for s in SCALES]

  def one_pass(_, training):
    for frame, labels in scaled:
      # In a loop, so that the gradient is compiled once a size.
      step = functools.partial(_update, student, tx, frame, labels)
      training = lax.fori_loop(0, 2, step, training)
    return training

  none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
  training = _Round(params, tx.init(params), none, none, zero)
  return lax.fori_loop(0, num_passes, one_pass, training)


def _update(student, tx, frame, labels, turn, training: _Round) -> _Round:
  """One update, on the mirror image in turn 1; unless it is not finite."""
  flip = lambda x: jnp.where(turn == 1, x[:, ::-1], x)
  frame, labels = flip(frame), Labels(*map(flip, labels))

  def loss_fn(params):
    return losses.weighted_cross_entropy(student.apply(params, frame), labels)

  grads = jax.grad(loss_fn)(training.params)
  steps, opt_state = tx.update(grads, training.opt_state, training.params)
  norm = optax.tree.norm(grads)
  made = _Round(
    params=optax.apply_updates(training.params, steps),
    opt_state=opt_state,
    num_updates=training.num_updates + 1,
    num_refused=training.num_refused,
    grad_norm=norm,
  )
  refused = training._replace(num_refused=training.num_refused + 1)
  pick = functools.partial(jnp.where, jnp.isfinite(norm))
  return jax.tree.map(pick, made, refused)


def scale(
  frame: Frame, labels: Labels, factor: float
) -> tuple[jax.Array, Labels]:
  """A smaller frame, bilinear, and its labels, of the nearest pixels."""
  size = tuple(
    max(round(factor * side), min(side, _LEAST_SIDE))
    for side in frame.shape[:2]
  )
  frame = jnp.asarray(frame)
  if size == frame.shape[:2]:
    return frame, Labels(*map(jnp.asarray, labels))
  small = jax.image.resize(frame.astype(jnp.float32), (*size, 3), "bilinear")
  small = jnp.clip(jnp.round(small), 0, 255).astype(jnp.uint8)
  nearest = lambda x: jax.image.resize(jnp.asarray(x), size, "nearest")
  return small, Labels(*map(nearest, labels))
