"""Conversion of any student into one that is cheaper between key frames.

The network's code does not change: the calls of its convolutions are
intercepted. On a key frame the whole network runs, and every converted
convolution keeps what its rule needs; on other frames the rule replaces it.
Everything between the convolutions runs on every frame.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ojd.errors import UserError
from ojd.models.delta import conv_layers
from ojd.models.delta.conv_layers import ConvLayer, Layer, Rule
from ojd.models.student import Params, Student
from ojd.types import Frame

Cache = Any  # a pytree of arrays, of all converted layers

MODEL, DELTA = "model", "delta"  # of the parameters
_KEPT, _AUX = "kept", "aux"  # collections


class Between(NamedTuple):
  """A frame between key frames."""

  logits: jax.Array  # [H, W, C] float32
  cache: Cache
  gmac: jax.Array  # float32, multiply-accumulates of all convolutions / 1e9
  # By layer the `Changed.aux` of its rule, nested as the parameters are.
  aux: Any


class DeltaStudent(NamedTuple):
  """A converted student; params: {"model": its own, "delta": the rules'}."""

  init: Callable[[jax.Array, Frame], Params]  # (rng_key, frame) -> params
  # The rules' parameters for a model: (rng_key, model) -> delta.
  begin: Callable[[jax.Array, Params], Params]
  # The rules' parameters after the model was trained: (params) -> delta.
  refit: Callable[[Params], Params]
  # The whole network: (params, frame) -> (logits [H, W, C], cache).
  apply_key: Callable[[Params, Frame], tuple[jax.Array, Cache]]
  # (params, cache, frame, rng_key=None) -> Between; a key is for training.
  apply_delta: Callable[..., Between]
  gmac: Callable[[Frame], float]  # of a key frame, by its size
  num_classes: int
  converted: Sequence[ConvLayer]  # on a frame of any size


def convert(
  student: Student, rule: Rule | Callable[[ConvLayer], Rule | None]
) -> DeltaStudent:
  """Converts all convolutions but the first and the last.

  With a rule that is exact the logits are those of the student.

  Args:
    student: of `from_linen`; any network of `layers.Conv`. Depthwise
      convolutions run whole on every frame.
    rule: of all of them, or of each; None where one runs whole.
  """
  rule_of = rule if callable(rule) else lambda conv: rule
  inner = conv_layers.converted(conv_layers.trace(student))
  chosen = [(conv, rule_of(conv)) for conv in inner]
  chosen = [(conv, rule) for conv, rule in chosen if rule is not None]
  if not chosen:
    raise UserError("delta: not one convolution converts")
  found, rules = zip(*chosen, strict=True)
  numbers = {conv.path: i for i, conv in enumerate(found)}

  def layer_of(params, conv):
    own = conv_layers.at(params[MODEL], conv.path)
    weights = conv_layers.at(params.get(DELTA, {}), conv.path)
    return Layer(conv, own["kernel"], own.get("bias"), weights)

  def begin(rng_key, model):
    keys = jax.random.split(rng_key, len(found))
    layer = lambda conv: layer_of({MODEL: model}, conv)
    return conv_layers.nest(
      found, lambda i, conv: rules[i].begin(keys[i], layer(conv))
    )

  def init(rng_key, frame):
    """The key is consumed."""
    key_model, key_delta = jax.random.split(rng_key)
    model = student.init(key_model, frame)
    return {MODEL: model, DELTA: begin(key_delta, model)}

  def refit(params):
    weights = lambda i, conv: rules[i].refit(layer_of(params, conv))
    return conv_layers.nest(found, weights)

  def apply_key(params, frame):
    def leave(conv, module, next_fun, x):
      z = next_fun(x)
      if conv.path in numbers:
        kept = rules[numbers[conv.path]].keep(x, z, conv)
        module.put_variable(_KEPT, _KEPT, kept)
      return z

    with _each_convolution(leave):
      logits, found_by = student.run({"params": params[MODEL]}, frame, [_KEPT])
    return logits, found_by[_KEPT]

  def apply_delta(params, cache, frame, rng_key=None):
    work = []

    def stand_in(conv, module, next_fun, x):
      if conv.path not in numbers:
        work.append(jnp.float32(conv.macs / 1e9))
        return next_fun(x)
      number = numbers[conv.path]
      key = None if rng_key is None else jax.random.fold_in(rng_key, number)
      kept = _kept(cache, conv)
      layer = layer_of(params, conv)
      changed = rules[number].change(layer, kept, x, key)
      module.put_variable(_KEPT, _KEPT, changed.kept)
      for name, value in changed.aux.items():
        module.put_variable(_AUX, name, value)
      work.append(changed.gmac)
      return changed.z

    with _each_convolution(stand_in):
      logits, by = student.run({"params": params[MODEL]}, frame, [_KEPT, _AUX])
    return Between(logits, by[_KEPT], sum(work), by[_AUX])

  @functools.cache  # asked for whenever a step is traced, which traces all
  def gmac_at(height, width):
    convs = conv_layers.trace(student, height, width)
    return sum(conv.macs for conv in convs) / 1e9

  gmac = lambda frame: gmac_at(*frame.shape[:2])
  return DeltaStudent(
    *(init, begin, refit, apply_key, apply_delta, gmac),
    *(student.num_classes, found),
  )


def _kept(cache, conv):
  """The memory of a layer; a UserError where it is of another layer."""
  kept = conv_layers.at(cache, conv.path).get(_KEPT)
  if kept is None:
    raise UserError(
      f"delta: the state is of another network, without {conv.name}"
    )
  if kept.z.shape[1:] != conv.shape_out or kept.x.shape[1:] != conv.shape_in:
    raise UserError(
      f"delta: the state is of another network or size of frames: {conv.name} "
      f"makes {conv.shape_out}, not {kept.z.shape[1:]}"
    )
  return kept


def _each_convolution(handle):
  """Calls of convolutions become `handle(conv, module, next_fun, x)`."""

  def intercept(next_fun, args, kwargs, context):
    if not conv_layers.is_convolution(context):
      return next_fun(*args, **kwargs)
    (x,) = args
    conv = conv_layers.of_module(context.module, x)
    return handle(conv, context.module, next_fun, x)

  return nn.intercept_methods(intercept)
