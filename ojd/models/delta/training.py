"""Training of a converted student on pairs of frames.

    loss = task + alpha * changes + beta * cost

Of a pair the first frame is the key frame and the second has the labels. The
rules' changes are to equal those of the whole network, run on both frames; the
cost is the work behind open gates. The model is trained too, through the key
frame, with a learning rate of its own.

Each layer also learns which of two students it gets, full or pair. Its gate is
one number b. In training a sample of it opens or closes,

    s = sigmoid((b + G1 - G2) / tau),  h = [s >= 1/2],

and the layer's change is h full(dx) + (1 - h) pair(dx); the gradient goes
through h as if it were s. The branch that b selects is deployed.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ojd import losses
from ojd.errors import UserError
from ojd.models.delta import blocks as blocks_lib
from ojd.models.delta import changes, conversion, files
from ojd.models.delta import skip as skip_lib
from ojd.models.delta.changes import Change
from ojd.models.delta.conversion import (
  DELTA,
  MODEL,
  Cache,
  Changed,
  ConvLayer,
  DeltaStudent,
  Rule,
  convert,
)
from ojd.models.student import Params, Student
from ojd.specs import Entry, Range
from ojd.types import Labels

FIRST_LOGIT = -1.0
_GATE, _FULL, _PAIR = "gate", "full", "pair"


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
  aux: Params, first: Cache, second: Cache, converted: Sequence[ConvLayer]
) -> jax.Array:
  """Mean over layers of the mean square of what their change is off by.

  Args:
    aux: of `apply_delta` on the second frame.
    first: what the whole network kept of the first frame.
    second: and of the second. No gradient flows through either.
    converted: the student's.
  """

  def of_layer(conv):
    z = lambda cache: conversion.at(cache, conv.path)["kept"].z
    target = jax.lax.stop_gradient(z(second) - z(first))
    found = conversion.at(aux, conv.path)["change"]
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
    net: a student whose rules report their changes, and gates if they have any.
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
  found = conversion.at(between.aux, net.converted[0].path)
  changed = cost = jnp.float32(0)
  if "change" in found:
    _, target = net.apply_key(params, frames[1])
    changed = change_loss(between.aux, cache, target, net.converted)
  if "open" in found:
    cost = open_share(between.aux, net.converted)
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


def gated(full: Change, pair: Change) -> Rule:
  """Both students of a layer and its gate; both run until it is deployed.

  Without a key nothing is drawn: the branch is the deployed one.
  """

  def with_weights(layer, name):
    return layer._replace(weights=layer.weights[name])

  def begin(rng_key, layer):
    del rng_key  # nothing is drawn
    students = {_FULL: full.begin(layer), _PAIR: pair.begin(layer)}
    return {**students, _GATE: jnp.float32(FIRST_LOGIT)}

  def change(layer, kept, x, rng_key):
    logit = layer.weights[_GATE]
    if rng_key is None:
      is_open = (logit > 0).astype(jnp.float32)
    else:
      is_open = conversion.gumbel_sample(logit, rng_key)
    dx, h = x - kept.x, is_open.astype(x.dtype)
    dz = h * full.apply(with_weights(layer, _FULL), dx)
    dz += (1 - h) * pair.apply(with_weights(layer, _PAIR), dx)
    work = [c.macs(layer.conv) / 1e9 for c in (full, pair)]
    gmac = is_open * work[0] + (1 - is_open) * work[1]
    aux = {"change": dz, "open": is_open}
    return Changed(kept.z + dz, kept, jax.lax.stop_gradient(gmac), aux)

  return Rule(
    begin=begin,
    refit=lambda layer: layer.weights,  # they learn themselves
    keep=lambda x, z, conv: changes.Kept(x, z),
    change=change,
  )


def open_share(aux: Params, converted: Sequence[ConvLayer]) -> jax.Array:
  """The share of layers with open gates in all converted layers' work.

  Args:
    aux: of `DeltaStudent.apply_delta`.
    converted: the student's.
  """
  total = sum(conv.macs for conv in converted)
  shares = (
    conversion.at(aux, conv.path)["open"] * (conv.macs / total)
    for conv in converted
  )
  return sum(shares)


def deploy(delta: Params, converted: Sequence[ConvLayer]) -> Params:
  """The parameters of the chosen branches, each as `of_weights` takes it."""

  def chosen(i, conv):
    del i
    weights = conversion.at(delta, conv.path)
    return dict(weights[_FULL if float(weights[_GATE]) > 0 else _PAIR])

  return conversion.nest(converted, chosen)


def names_open(delta: Params, converted: Sequence[ConvLayer]) -> list[str]:
  """The layers whose uncompressed student is deployed."""
  deployed = deploy(delta, converted)
  return [
    conv.name
    for conv in converted
    if "kernel" in conversion.at(deployed, conv.path)
  ]


def convolutions(
  student: Student,
  *,
  gamma: Annotated[int, Range(1)] = 4,
  policy: changes.Policy = "out",
  match_authors: bool = False,
) -> DeltaStudent:
  """Each layer chooses between one like its own and a pair of small ones.

  Args:
    gamma: how many times fewer channels the pair has than its layer.
    policy: channels of the pair follow those of the output (out) or the fewer
      of both sides (min).
    match_authors: whether the convolutions have biases of their own.
  """
  full = changes.full(bias_twice=match_authors)
  pair = changes.pair(gamma=gamma, policy=policy, bias_twice=match_authors)
  net = convert(student, gated(full, pair))
  changes.check_gamma(gamma, policy, net.converted)
  return net


def blocks(
  student: Student, *, gamma: Annotated[int, Range(1)] = 4
) -> DeltaStudent:
  """A small network replaces each residual block.

  Args:
    gamma: how many times fewer channels it has than its block.
  """
  return blocks_lib.convert_blocks(student, blocks_lib.thinner(gamma))


def skip(student: Student, *, block: skip_lib.Block = 1) -> DeltaStudent:
  """Gates decide where a convolution is computed.

  Args:
    block: side of the blocks of pixels that a gate opens as one.
  """
  return convert(student, skip_lib.skip(skip_lib.by_gumbel(), block=block))


# What a training may put in place of a student's convolutions, by the form of
# the file that it leaves.
FORMS = {
  files.CONVOLUTIONS: Entry(convolutions),
  files.BLOCKS: Entry(blocks),
  files.SKIP: Entry(skip),
}
