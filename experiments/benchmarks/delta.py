"""Students of two speeds.

A saving of multiply-accumulates is not one of time: the note of every ratio of
times has the ratio of the work.

deltaG_vs_whole, deltaG_vs_whole_MODEL, skip_vs_whole
    a frame between key frames over a whole one, of which a tenth has changed
follow_vs_update
    making the pairs of changes anew, over an update
"""

import functools

import jax

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case
from ojd import updates
from ojd.models.delta import changes, skip
from ojd.models.delta.conversion import convert

GAMMAS = (2, 4, 8, 16)
MODELS = ("shadow", "mobilenet_v2", "ddrnet23_slim")


def pairs(model, gamma, at):
  """A frame between key frames by low-rank pairs, over a whole one."""
  change = changes.pair(gamma=gamma)
  rule_of = changes.rules(changes.where_it_saves(change))
  name = f"delta{gamma}_vs_whole"
  if model != "jitnet":
    name += f"_{model}"
  return _between(name, model, rule_of, at)


def skipping(at):
  """The same by skip convolutions, of which nothing is left out in dense."""
  rule = skip.skip(skip.by_norm(), memory="reference")
  return _between("skip_vs_whole", "jitnet", rule, at)


def follow(at):
  """Fitting the pairs to a model that has learned, over one of its updates."""
  student, params, frame, labels = students.inputs(at)
  pair = changes.where_it_saves(changes.pair())
  net = convert(student, changes.rules(pair))
  delta = jax.jit(net.begin)(jax.random.key(0), params)
  made = jax.jit(net.refit)
  tx = updates.sgd(learning_rate=0.01)
  step = students.single_update(student, tx, frame, labels)
  opt_state = tx.init(params)
  return measure.compare(
    "follow_vs_update",
    lambda: made({"model": params, "delta": delta}),
    lambda: step(params, opt_state),
    at=at,
    note="gamma 4",
  )


def _between(name, model, rule_of, at):
  student, params, frame, _ = students.inputs(at, model)
  net = convert(student, rule_of)
  delta = jax.jit(net.begin)(jax.random.key(0), params)
  both = {"model": params, "delta": delta}
  # A tenth of the frame has changed.
  rows = max(1, at.size[0] // 10)
  later = frame.at[:rows].set(255 - frame[:rows])
  _, cache = jax.jit(net.apply_key)(both, frame)
  between, whole = jax.jit(net.apply_delta), jax.jit(student.apply)
  work = float(between(both, cache, later).gmac) / net.gmac(frame)
  return measure.compare(
    name,
    lambda: between(both, cache, later).logits,
    lambda: whole(params, later),
    at=at,
    note=f"{work:.3f} of the work, {model}",
  )


CASES = [
  *(
    Case(functools.partial(pairs, *each), measure.SMALL, is_long=bool(i))
    for i, each in enumerate(
      [("jitnet", gamma) for gamma in GAMMAS] + [(m, 4) for m in MODELS]
    )
  ),
  Case(skipping, measure.SMALL),
  Case(follow, measure.SMALL),
]
