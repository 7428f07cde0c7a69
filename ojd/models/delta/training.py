"""Training of a converted student on pairs of frames.

    loss = task + alpha * changes + beta * cost

Of a pair the first frame is the key frame and the second has the labels. The
changes of the whole network, run on both frames, are what those of the rules
are to be; the cost is that of open gates. The model learns as well, through the
key frame, by a learning rate of its own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ojd import losses
from ojd.errors import UserError
from ojd.models.delta import gates, sites
from ojd.models.delta.convert import DELTA, MODEL, Cache, DeltaStudent
from ojd.models.delta.sites import Site
from ojd.models.student import Params
from ojd.types import Labels


class Recipe(NamedTuple):
  """The constants, as published for street scenes."""

  num_steps: int = 6_000
  alpha: float = 0.01
  beta: float = 0.1
  until: float = 1 / 3  # of all steps; after them alpha is 0
  model_rate: float = 1e-3
  delta_rate: float = 1e-2
  momentum: float = 0.9
  power: float = 0.9  # of the rates' fall to 0


class Losses(NamedTuple):
  """The terms, float32, none of them scaled."""

  task: jax.Array
  changes: jax.Array  # mean over layers of mean squares
  cost: jax.Array  # share of the converted layers' work behind open gates


class TrainState(NamedTuple):
  """Everything that changes."""

  params: Params  # {"model", "delta"}
  opt_state: optax.OptState
  scale: jax.Array  # float32, 1 / the first step's loss of changes; 0: none yet
  step: jax.Array  # int32


def change_loss(
  told: Params, first: Cache, second: Cache, converted: Sequence[Site]
) -> jax.Array:
  """Mean over layers of the mean square of what their change is off by.

  Args:
    told: of `apply_delta` on the second frame.
    first: what the whole network kept of the first frame.
    second: and of the second. No gradient flows through either.
    converted: the sites of the student.
  """

  def of_layer(site):
    z = lambda cache: sites.at(cache, site.path)["kept"].z
    target = jax.lax.stop_gradient(z(second) - z(first))
    found = sites.at(told, site.path)["change"]
    return jnp.mean(jnp.square((found - target).astype(jnp.float32)))

  return sum(map(of_layer, converted)) / len(converted)


def pair_losses(
  net: DeltaStudent,
  params: Params,
  frames: jax.Array,
  labels: Labels,
  rng_key: jax.Array,
) -> Losses:
  """The terms on one pair.

  Args:
    net: a student whose rules tell their changes, and gates if they have any.
    params: of it.
    frames: [2, H, W, 3] uint8, the key frame and a later one.
    labels: of the later one.
    rng_key: of the gates; consumed.
  """
  if len(frames) != 2:
    raise UserError(
      f"delta: a pair of frames is trained on, not {len(frames)}; a frame "
      "alone is a plain key frame"
    )
  _, cache = net.apply_key(params, frames[0])
  between = net.apply_delta(params, cache, frames[1], rng_key)
  tells = sites.at(between.told, net.sites[0].path)
  changed = cost = jnp.float32(0)
  if "change" in tells:
    _, target = net.apply_key(params, frames[1])
    changed = change_loss(between.told, cache, target, net.sites)
  if "open" in tells:
    cost = gates.cost(between.told, net.sites)
  return Losses(
    task=losses.weighted_cross_entropy(between.logits, labels),
    changes=changed,
    cost=cost,
  )


def make_tx(recipe: Recipe) -> optax.GradientTransformation:
  """SGD with a learning rate of the model and one of the rules."""

  def sgd(rate):
    falling = optax.polynomial_schedule(
      rate, 0.0, recipe.power, recipe.num_steps
    )
    return optax.sgd(falling, momentum=recipe.momentum)

  parts = {MODEL: sgd(recipe.model_rate), DELTA: sgd(recipe.delta_rate)}
  label = lambda params: {
    name: jax.tree.map(lambda _, name=name: name, params[name])
    for name in params
  }
  return optax.multi_transform(parts, label)


def start(params: Params, recipe: Recipe) -> TrainState:
  """The state before the first step."""
  # Copies: steps are made in their place.
  params = jax.tree.map(jnp.array, params)
  opt_state = make_tx(recipe).init(params)
  return TrainState(params, opt_state, jnp.zeros(()), jnp.zeros((), jnp.int32))


def update(
  net: DeltaStudent,
  recipe: Recipe,
  state: TrainState,
  frames: jax.Array,
  labels: Labels,
  rng_key: jax.Array,
) -> tuple[TrainState, Losses]:
  """One step on pairs; a gradient that is not finite moves the count alone.

  Args:
    net: the converted student.
    recipe: the constants.
    state: of `start`.
    frames: [B, 2, H, W, 3] uint8.
    labels: of the later frames, [B, H, W] each.
    rng_key: of the gates, one sample for the batch; consumed.
  """

  def loss_fn(params):
    terms = jax.vmap(
      lambda frames, labels: pair_losses(net, params, frames, labels, rng_key)
    )(frames, labels)
    terms = jax.tree.map(jnp.mean, terms)
    return total(recipe, state, terms), terms

  grads, terms = jax.grad(loss_fn, has_aux=True)(state.params)
  steps, opt_state = make_tx(recipe).update(
    grads, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, steps)
  scale = _scale(state, terms)
  moved = TrainState(params, opt_state, scale, state.step)
  keep = jnp.isfinite(optax.tree.norm(grads))
  kept = jax.tree.map(lambda new, old: jnp.where(keep, new, old), moved, state)
  return kept._replace(step=state.step + 1), terms


def total(recipe: Recipe, state: TrainState, terms: Losses) -> jax.Array:
  """The loss: changes count 1 on the first step, and later not at all."""
  is_early = state.step < recipe.until * recipe.num_steps
  alpha = jnp.where(is_early, recipe.alpha, 0.0) * _scale(state, terms)
  return terms.task + alpha * terms.changes + recipe.beta * terms.cost


def _scale(state: TrainState, terms: Losses) -> Any:
  """One over the first loss of changes; 1 while there is none."""
  first = jax.lax.stop_gradient(terms.changes)
  fresh = jnp.where(first > 0, 1 / jnp.where(first > 0, first, 1), 0.0)
  return jnp.where(state.scale > 0, state.scale, fresh)
