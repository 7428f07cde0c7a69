"""Figures of students of two speeds: `benchmark --what=delta`.

A saving of multiply-accumulates is not one of time: beside every ratio of times
stands that of the work.
"""

import functools

import jax

from experiments import speed_figures
from ojd import updates
from ojd.models.delta import changes, skip
from ojd.models.delta.convert import convert
from ojd.run import measure

GAMMAS = (2, 4, 8, 16)
MODELS = ("shadow", "mobilenet_v2", "ddrnet23_slim")


def pairs(model, gamma, size, repeats):
  """A frame between key frames by low-rank pairs, over a whole one."""
  change = changes.pair(gamma=gamma)
  rule_of = changes.rules(changes.where_it_saves(change))
  name = f"delta{gamma}_vs_whole"
  if model != "jitnet":
    name += f"_{model}"
  return _between(name, model, rule_of, size, repeats)


def skipping(size, repeats):
  """The same by skip convolutions, of which nothing is left out in dense."""
  rule = skip.skip(skip.by_norm(), memory="reference")
  return _between("skip_vs_whole", "jitnet", rule, size, repeats)


def follow(size, repeats):
  """Pairs made anew of a model that has learnt, over one of its updates."""
  student, params, frame, labels = speed_figures.inputs(size)
  pair = changes.where_it_saves(changes.pair())
  net = convert(student, changes.rules(pair))
  delta = jax.jit(net.begin)(jax.random.key(0), params)
  made = jax.jit(net.follow)
  tx = updates.sgd(learning_rate=0.01)
  step = speed_figures.single_update(student, tx, frame, labels)
  opt_state = tx.init(params)
  return measure.compare(
    "follow_vs_update",
    lambda: made({"model": params, "delta": delta}),
    lambda: step(params, opt_state),
    repeats=repeats,
    note=f"gamma 4, {size[0]}x{size[1]}",
  )


def _between(name, model, rule_of, size, repeats):
  student, params, frame, _ = speed_figures.inputs(size, model)
  net = convert(student, rule_of)
  delta = jax.jit(net.begin)(jax.random.key(0), params)
  both = {"model": params, "delta": delta}
  # A tenth of the frame has changed.
  rows = max(1, size[0] // 10)
  later = frame.at[:rows].set(255 - frame[:rows])
  _, cache = jax.jit(net.apply_key)(both, frame)
  between, whole = jax.jit(net.apply_delta), jax.jit(student.apply)
  work = float(between(both, cache, later).gmac) / net.gmac(frame)
  return measure.compare(
    name,
    lambda: between(both, cache, later).logits,
    lambda: whole(params, later),
    repeats=repeats,
    note=f"{work:.3f} of the work, {model}, {size[0]}x{size[1]}",
  )


ALL = [
  *(functools.partial(pairs, "jitnet", gamma) for gamma in GAMMAS),
  *(functools.partial(pairs, model, 4) for model in MODELS),
  *(skipping, follow),
]
