"""Trains a student on batches of labeled frames before any run; it can resume.

The batch of step i is a function of (seed, i), and the state is saved from time
to time, so a resumed training equals an uninterrupted one. On a mesh of devices
and hosts every step equals the step of one device, except for rounding.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ojd import losses, updates
from ojd.errors import UserError
from ojd.formats.replacing import replacing
from ojd.models.student import Params, Student
from ojd.pretraining import data_parallel
from ojd.types import Labels

_STATE, _RECIPE = "training.msgpack", "recipe.json"
_WARM_UP = 200


class Recipe(NamedTuple):
  """What determines the weights, apart from the data.

  The rate of `adamw` warms up and then falls along half a cosine. `slow_adam`
  is the authors' recipe for COCO: a rate of 0.1, which an epsilon of 1 makes
  small and which falls tenfold every `decay_steps`. `sgd` is the step of online
  updates, with weight decay.
  """

  seed: int = 0
  num_steps: int = 6_000
  batch: int = 4
  optimizer: str = "adamw"
  learning_rate: float = 2e-3
  weight_decay: float = 1e-4
  decay_steps: int = 0
  height: int = 192
  width: int = 320


class TrainState(NamedTuple):
  """Everything that changes in a training."""

  params: Params
  opt_state: optax.OptState
  step: jax.Array  # int32


class StepReport(NamedTuple):
  """The loss of one step."""

  step: int
  loss: float


def make_tx(recipe: Recipe) -> optax.GradientTransformation:
  """The gradient step of a recipe; weight decay applies only to kernels."""
  decay = optax.add_decayed_weights(recipe.weight_decay, _is_kernel)
  if recipe.optimizer == "slow_adam":
    rate = optax.exponential_decay(
      recipe.learning_rate, recipe.decay_steps, 0.1, staircase=True
    )
    # Weight decay is part of the loss, so it comes before Adam.
    return optax.chain(decay, optax.adam(rate, eps=1.0))
  if recipe.optimizer == "sgd":
    return optax.chain(decay, updates.sgd(learning_rate=recipe.learning_rate))
  rate = optax.warmup_cosine_decay_schedule(
    0.0, recipe.learning_rate, _WARM_UP, max(recipe.num_steps, _WARM_UP + 1)
  )
  return optax.adamw(rate, weight_decay=recipe.weight_decay, mask=_is_kernel)


def _is_kernel(params):
  return jax.tree.map(lambda x: x.ndim > 1, params)


def batch_loss(
  student: Student, params: Params, frames: jax.Array, labels: Labels
) -> jax.Array:
  """Mean over frames [B, H, W, 3] of the loss that online updates minimize."""

  def frame_loss(frame, labels):
    logits = student.apply(params, frame)
    return losses.weighted_cross_entropy(logits, labels)

  return jnp.mean(jax.vmap(frame_loss)(frames, labels))


def init(student: Student, recipe: Recipe) -> TrainState:
  """The state before the first step."""
  frame = jnp.zeros((recipe.height, recipe.width, 3), jnp.uint8)
  params = student.init(jax.random.key(recipe.seed), frame)
  opt_state = make_tx(recipe).init(params)
  return TrainState(params, opt_state, jnp.zeros((), jnp.int32))


def update(
  student: Student,
  tx: optax.GradientTransformation,
  state: TrainState,
  frames: jax.Array,
  labels: Labels,
  mean_fn: Callable[[Any], Any] = lambda tree: tree,
) -> tuple[TrainState, jax.Array]:
  """One step; with gradients that are not finite only the count changes.

  Args:
    student: the network to train.
    tx: of the recipe.
    state: before the step.
    frames: [B, H, W, 3] uint8.
    labels: [B, H, W] each.
    mean_fn: averages loss and gradients over the devices, if each has a part of
      the batch.
  """
  loss_fn = lambda params: batch_loss(student, params, frames, labels)
  loss, grads = mean_fn(jax.value_and_grad(loss_fn)(state.params))
  steps, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, steps)
  moved = TrainState(params, opt_state, state.step)
  keep = jnp.isfinite(optax.tree.norm(grads))
  kept = jax.tree.map(lambda new, old: jnp.where(keep, new, old), moved, state)
  return kept._replace(step=state.step + 1), loss


def train(
  student: Student,
  recipe: Recipe,
  about: dict[str, Any],
  batch_fn: Callable[[int], tuple[np.ndarray, Labels]],
  folder: pathlib.Path,
  *,
  mesh: Mesh | None = None,
  **options: Any,
) -> Params:
  """Trains to the last step of a recipe, and resumes from `folder`.

  Args:
    student: the network to train.
    recipe: how to train it.
    about: JSON; what else determines the weights. A folder of another training
      is refused.
    batch_fn: as in `carry_on`, as are the others.
    folder: for the state.
    mesh: of the devices to train on.
    **options: `save_every`, `report_fn` and `should_stop`.
  """
  tx = make_tx(recipe)
  mean_fn = data_parallel.mean if mesh else lambda tree: tree
  state = carry_on(
    init(student, recipe),
    lambda state, *batch: update(student, tx, state, *batch, mean_fn),
    {**about, **recipe._asdict()},
    batch_fn,
    folder,
    num_steps=recipe.num_steps,
    mesh=mesh,
    **options,
  )
  return state.params


def carry_on(
  state: Any,
  step_fn: Callable[..., tuple[Any, jax.Array]],
  about: dict[str, Any],
  batch_fn: Callable[[int], tuple[np.ndarray, Labels]],
  folder: pathlib.Path,
  *,
  num_steps: int,
  save_every: int = 500,
  report_fn: Callable[[StepReport], None] = lambda report: None,
  should_stop: Callable[[], bool] = lambda: False,
  mesh: Mesh | None = None,
) -> Any:
  """Trains any state that counts its steps, and returns the last one.

  Args:
    state: the initial one, with a field `step`.
    step_fn: (state, frames, labels) -> (state, loss); compiled here. With a
      mesh it is a step for `data_parallel.parallel`.
    about: JSON; everything that determines the result.
    batch_fn: returns frames and labels of a step, as a function of the step
      alone; with several hosts the `data_parallel.rows` of this one.
    folder: for the state; only the first host uses it.
    num_steps: of the whole training.
    save_every: steps between two saves.
    report_fn: called after every step.
    should_stop: called before every step; True ends the training. With a mesh
      all hosts take this step, and then all stop if one should.
    mesh: of the devices to train on; None for the default device.
  """
  state = _begin(folder, about, state, mesh)
  step_fn = _compiled(step_fn, mesh)
  for step in range(int(state.step), num_steps):
    is_stopped = should_stop()
    if is_stopped and mesh is None:
      _save(folder / _STATE, state)
      break
    state, loss, is_over = step_fn(state, is_stopped, batch_fn(step))
    report_fn(StepReport(step, float(loss)))
    if is_over or (step + 1) % save_every == 0 or step + 1 == num_steps:
      _save(folder / _STATE, state)
    if is_over:
      break
  return state


def _begin(folder, about, state, mesh):
  """The state to start from; all hosts take that of the first one."""

  def look():
    if not data_parallel.is_first_host():
      return state
    _claim(folder / _RECIPE, about)
    return _restore(folder / _STATE, state)

  if mesh is None:
    return look()
  data_parallel.check_same({**about, "devices": mesh.size})
  return data_parallel.replicate(mesh, data_parallel.on_all_hosts(look))


def _compiled(step_fn, mesh):
  """(state, is_stopped, batch) -> (state, loss, whether to stop)."""
  if mesh is not None:
    return data_parallel.parallel(mesh, step_fn)
  step_fn = jax.jit(step_fn, donate_argnums=0)
  return lambda state, is_stopped, batch: (
    *step_fn(state, *batch),
    is_stopped,
  )


def forget(folder: pathlib.Path) -> None:
  """Deletes the state of a training whose weights are saved elsewhere."""
  (folder / _STATE).unlink(missing_ok=True)


def _claim(path, recipe):
  """Writes the recipe of a training to its folder; refuses another recipe."""
  recipe = json.loads(json.dumps(recipe))
  if not path.exists():
    path.write_text(json.dumps(recipe, indent=2))
    return
  try:
    there = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read: {error}") from None
  for name in sorted(there.keys() | recipe.keys()):
    if there.get(name) != recipe.get(name):
      raise UserError(
        f"{path.parent} holds a training with {name}={there.get(name)}, not "
        f"{recipe.get(name)}; give another --workdir"
      )


def _save(path, state):
  if not data_parallel.is_first_host():
    return
  with replacing(path) as beside:
    beside.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))


def _restore(path, state):
  """Reads the latest saved state; returns `state` if there is none."""
  if not path.exists():
    return state
  try:
    restored = flax.serialization.from_bytes(state, path.read_bytes())
  except Exception as error:  # msgpack raises many kinds
    words = str(error).split("\n")[0]
    raise UserError(f"{path} cannot be read: {words}") from None
  return jax.tree.map(jnp.asarray, restored)
