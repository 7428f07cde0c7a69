"""Any student made into one of key frames and of frames between them.

The network stays as it is written: what its convolutions do is intercepted. On
a key frame it runs whole, and every converted convolution leaves what it has to
remember; on other frames the rule stands in for it. All that lies between
convolutions runs on every frame, on what they answer.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd.errors import UserError
from ojd.models.delta import sites as sites_lib
from ojd.models.delta.rules import Rule
from ojd.models.delta.sites import Layer, Site
from ojd.models.student import Params, Student
from ojd.types import Frame

Cache = Any  # a pytree of arrays, of all converted layers

MODEL, DELTA = "model", "delta"  # of the parameters
_KEPT, _TOLD = "kept", "told"  # collections


class Between(NamedTuple):
  """A frame between key frames."""

  logits: jax.Array  # [H, W, C] float32
  cache: Cache
  gmac: jax.Array  # float32, multiply-accumulates of all convolutions / 1e9
  # By layer what its rule tells of itself, nested as the parameters are.
  told: Any


class DeltaStudent(NamedTuple):
  """A student of two speeds; params: {"model": its own, "delta": of rules}."""

  init: Callable[[jax.Array, Frame], Params]  # (rng_key, frame) -> params
  # The rules' parameters for a model: (rng_key, model) -> delta.
  begin: Callable[[jax.Array, Params], Params]
  # The rules' parameters once the model has learnt: (params) -> delta.
  follow: Callable[[Params], Params]
  # The whole network: (params, frame) -> (logits [H, W, C], cache).
  apply_key: Callable[[Params, Frame], tuple[jax.Array, Cache]]
  # (params, cache, frame, rng_key=None) -> Between; a key is for training.
  apply_delta: Callable[..., Between]
  gmac: Callable[[Frame], float]  # of a key frame, by its size
  num_classes: int
  sites: Sequence[Site]  # those that are converted, on a frame of no account


def convert(
  student: Student, rule: Rule | Callable[[Site], Rule | None]
) -> DeltaStudent:
  """Converts all convolutions but the first and the last.

  With a rule that is exact the logits are those of the student.

  Args:
    student: of `from_linen`; any network of `layers.Conv`. Depthwise
      convolutions run whole on every frame.
    rule: of all of them, or of each; None where one is to run whole.
  """
  rule_of = rule if callable(rule) else lambda site: rule
  inner = sites_lib.converted(sites_lib.trace(student))
  chosen = [(site, rule_of(site)) for site in inner]
  chosen = [(site, rule) for site, rule in chosen if rule is not None]
  if not chosen:
    raise UserError("delta: not one convolution converts")
  found, rules = zip(*chosen, strict=True)
  numbers = {site.path: i for i, site in enumerate(found)}

  def layer_of(params, site):
    own = sites_lib.at(params[MODEL], site.path)
    weights = sites_lib.at(params.get(DELTA, {}), site.path)
    return Layer(site, own["kernel"], own.get("bias"), weights)

  def begin(rng_key, model):
    keys = jax.random.split(rng_key, len(found))
    layer = lambda site: layer_of({MODEL: model}, site)
    return sites_lib.nest(
      found, lambda i, site: rules[i].begin(keys[i], layer(site))
    )

  def init(rng_key, frame):
    """The key is consumed."""
    key_model, key_delta = jax.random.split(rng_key)
    model = student.init(key_model, frame)
    return {MODEL: model, DELTA: begin(key_delta, model)}

  def follow(params):
    weights = lambda i, site: rules[i].follow(layer_of(params, site))
    return sites_lib.nest(found, weights)

  def apply_key(params, frame):
    def leave(site, module, next_fun, x):
      z = next_fun(x)
      if site.path in numbers:
        kept = rules[numbers[site.path]].keep(x, z, site)
        module.put_variable(_KEPT, _KEPT, kept)
      return z

    with _each_convolution(leave):
      logits, found_by = student.run({"params": params[MODEL]}, frame, [_KEPT])
    return logits, found_by[_KEPT]

  def apply_delta(params, cache, frame, rng_key=None):
    work = []

    def stand_in(site, module, next_fun, x):
      if site.path not in numbers:
        work.append(jnp.float32(site.macs / 1e9))
        return next_fun(x)
      number = numbers[site.path]
      key = None if rng_key is None else jax.random.fold_in(rng_key, number)
      kept = _kept(cache, site)
      layer = layer_of(params, site)
      changed = rules[number].change(layer, kept, x, key)
      module.put_variable(_KEPT, _KEPT, changed.kept)
      for name, value in changed.told.items():
        module.put_variable(_TOLD, name, value)
      work.append(changed.gmac)
      return changed.z

    with _each_convolution(stand_in):
      logits, by = student.run({"params": params[MODEL]}, frame, [_KEPT, _TOLD])
    return Between(logits, by[_KEPT], sum(work), by[_TOLD])

  @functools.cache  # asked for whenever a step is traced, which traces all
  def gmac_at(height, width):
    sites = sites_lib.trace(student, height, width)
    return sum(site.macs for site in sites) / 1e9

  gmac = lambda frame: gmac_at(*frame.shape[:2])
  return DeltaStudent(
    *(init, begin, follow, apply_key, apply_delta, gmac),
    *(student.num_classes, found),
  )


def _kept(cache, site):
  """What a layer remembers; a UserError where that is of another one."""
  kept = sites_lib.at(cache, site.path).get(_KEPT)
  if kept is None:
    raise UserError(
      f"delta: the state is of another network, without {site.name}"
    )
  if kept.z.shape[1:] != site.shape_out or kept.x.shape[1:] != site.shape_in:
    raise UserError(
      f"delta: the state is of another network or size of frames: {site.name} "
      f"makes {site.shape_out}, not {kept.z.shape[1:]}"
    )
  return kept


def _each_convolution(handle):
  """Convolutions do what `handle(site, module, next_fun, x)` says."""

  def intercept(next_fun, args, kwargs, context):
    if not sites_lib.is_convolution(context):
      return next_fun(*args, **kwargs)
    (x,) = args
    site = sites_lib.site_of(context.module, x)
    return handle(site, context.module, next_fun, x)

  return nn.intercept_methods(intercept)
