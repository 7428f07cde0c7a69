"""Which of its two students a layer gets, learnt along with them.

A layer's gate is one number b. In training a sample of it opens or closes,

    s = sigmoid((b + G1 - G2) / tau),  h = [s >= 1/2],

and the layer's change is h full(dx) + (1 - h) pair(dx); the gradient goes
through h as if it were s. What is deployed is the one branch that b says.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ojd.models.delta import changes, sites, svd
from ojd.models.delta.changes import Change
from ojd.models.delta.rules import Changed, Rule
from ojd.models.delta.sites import Site
from ojd.models.student import Params

FIRST_LOGIT = -1.0
TEMPERATURE = 2 / 3
_GATE, _FULL, _PAIR = "gate", "full", "pair"


def sample(
  logit: jax.Array, rng_key: jax.Array, *, is_logistic: bool = True
) -> jax.Array:
  """0 or 1, with the gradient of the soft sample.

  Args:
    logit: any shape.
    rng_key: consumed.
    is_logistic: whether the noise is the difference of two Gumbel draws, or
      one of them.
  """
  first, second = jax.random.split(rng_key)
  noise = jax.random.gumbel(first, logit.shape, logit.dtype)
  if is_logistic:
    noise -= jax.random.gumbel(second, logit.shape, logit.dtype)
  soft = jax.nn.sigmoid((logit + noise) / TEMPERATURE)
  hard = (soft >= 0.5).astype(soft.dtype)
  return jax.lax.stop_gradient(hard - soft) + soft


def gated(full: Change, pair: Change) -> Rule:
  """Both students of a layer, and its gate; both run until it is deployed.

  Without a key nothing is drawn: the branch is the one that is deployed.
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
      is_open = sample(logit, rng_key)
    dx, h = x - kept.x, is_open.astype(x.dtype)
    dz = h * full.apply(with_weights(layer, _FULL), dx)
    dz += (1 - h) * pair.apply(with_weights(layer, _PAIR), dx)
    work = [c.macs(layer.site) / 1e9 for c in (full, pair)]
    gmac = is_open * work[0] + (1 - is_open) * work[1]
    told = {"change": dz, "open": is_open}
    return Changed(kept.z + dz, kept, jax.lax.stop_gradient(gmac), told)

  return Rule(
    begin=begin,
    follow=lambda layer: layer.weights,  # they learn themselves
    keep=lambda x, z, site: changes.Kept(x, z),
    change=change,
  )


def cost(told: Params, converted: Sequence[Site]) -> jax.Array:
  """What open gates cost: their layers' share of all converted layers' work.

  Args:
    told: of `DeltaStudent.apply_delta`.
    converted: the sites of the student.
  """
  total = sum(site.macs for site in converted)
  shares = (
    sites.at(told, site.path)["open"] * (site.macs / total)
    for site in converted
  )
  return sum(shares)


def deploy(delta: Params, converted: Sequence[Site]) -> Params:
  """The parameters of the chosen branches, each as `of_weights` takes it."""

  def chosen(i, site):
    del i  # the site says it all
    weights = sites.at(delta, site.path)
    return dict(weights[_FULL if float(weights[_GATE]) > 0 else _PAIR])

  return sites.nest(converted, chosen)


def names_open(delta: Params, converted: Sequence[Site]) -> list[str]:
  """The layers whose uncompressed student is deployed."""
  deployed = deploy(delta, converted)
  return [
    site.name for site in converted if "kernel" in sites.at(deployed, site.path)
  ]


def of_weights(weights: Any) -> Change:
  """`full` or `pair`, of as many channels as the weights have."""
  if "first" not in weights:
    return changes.full(bias_twice="bias" in weights)
  rank = weights["first"].shape[-1]
  like = changes.pair(bias_twice="bias" in weights)

  def begin(layer):
    first, second = svd.split(layer.kernel, rank)
    return {**like.begin(layer), "first": first, "second": second}

  macs = lambda site: changes.pair_macs(site, rank)
  return like._replace(begin=begin, macs=macs)
