"""Steps of some layers, coordinates or ranks: the others stay."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import flatten_util

from ojd import distill, losses, updates
from ojd.errors import UserError
from ojd.models import pretrained
from ojd.updates import low_rank, partition, subsets
from tests.reference import layered_student, tiny_student
from tests.reference.compare import close

DECODER = {"dec1", "dec2", "decoder_conv1", "logits"}
LAYERS = {"head": {"logits"}, "partial": DECODER - {"dec1"}, "decoder": DECODER}
# Passes through the five convolutions, kernel and input gradients: an input
# gradient is needed of every layer behind the first that trains.
PRODUCTS = {
  "sgd": 5 + 5 + 4,
  "decoder": 5 + 4 + 3,
  "partial": 5 + 3 + 2,
  "head": 5 + 1 + 0,
  "norm_only": 5 + 0 + 4,
}

FRACTION, RATE = 0.1, 0.05
FIXED = ("first_layers", "last_layers", "both_ends", "random_coordinates")
TINY = tiny_student.make()


def _flat(tree):
  return np.asarray(flatten_util.ravel_pytree(tree)[0])


def _trains(name, leaf):
  if name == "norm_only":
    return leaf.split("/")[1] == "norm"
  return leaf.split("/")[0] in LAYERS[name]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", [*LAYERS, "norm_only"])
def test_only_those_move_and_as_all_would(name, jit):
  tx, sgd = (
    updates.STEPS[name].factory(learning_rate=0.05) for name in (name, "sgd")
  )
  params, first, last = layered_student.adapted(
    tx, num_updates=1, jit=jit, times=(0, 1)
  )
  _, whole = layered_student.adapted(sgd, num_updates=1)
  before, after, later, expected = (
    pretrained.flatten(x)
    for x in (params, first.params, last.params, whole.params)
  )
  for leaf in before:
    if _trains(name, leaf):
      close(after[leaf], expected[leaf], 1e-4, 1e-6)
      assert np.any(before[leaf] != after[leaf]), leaf
      assert np.any(later[leaf] != after[leaf]), leaf
    else:
      np.testing.assert_array_equal(before[leaf], later[leaf])
  # Moments are kept of nothing else.
  size = sum(x.size for n, x in before.items() if _trains(name, n))
  assert sum(x.size for x in jax.tree.leaves(last.opt_state)) == size


@pytest.mark.parametrize("name", PRODUCTS)
def test_backward_pass_ends_at_the_first_layer_that_trains(name):
  tx = updates.STEPS[name].factory(learning_rate=0.05)
  params, opt_state = layered_student.begin(tx)
  frame, labels = layered_student.FRAMES[0], layered_student.labels_of(0)
  adapt = lambda params, opt_state, u_max: distill.adapt(
    *(layered_student.STUDENT, tx, params, opt_state, frame, labels),
    a_thresh=1.1,
    u_max=u_max,
  )
  text = jax.jit(adapt).lower(params, opt_state, jnp.int32(3)).compile()
  products = re.findall(r"= \S+ (?:convolution|dot)\(", text.as_text())
  assert len(products) == PRODUCTS[name]


def test_student_without_such_layers_is_refused():
  student, tx = TINY, updates.STEPS["partial"].factory(learning_rate=0.1)
  with pytest.raises(UserError, match="--update=partial: this student has"):
    layered_student.begin(tx, student)


def _changed(before, after):
  return np.flatnonzero(_flat(before) != _flat(after))


@pytest.mark.parametrize("name", FIXED)
def test_a_fraction_moves_and_it_is_always_the_same(name):
  tx = updates.STEPS[name].factory(learning_rate=RATE, fraction=FRACTION)
  params, _, result = layered_student.adapted(tx, times=(0, 1))
  moved = _changed(params, result.params)
  count = round(FRACTION * _flat(params).size)
  assert 0.7 * count < len(moved) <= count + 1
  sizes = [leaf.size for leaf in jax.tree.leaves(params)]
  layers = [path.split("/")[0] for path in partition.names(params)]
  there = set(np.repeat(layers, sizes)[moved])
  ends = {"first_layers": {"conv1"}, "last_layers": {"logits"}}
  assert there & {"conv1", "logits"} == ends.get(name, {"conv1", "logits"})


@pytest.mark.parametrize("name", [*FIXED, "top_k"])
def test_all_coordinates_are_adam(name):
  results = []
  for tx in (
    updates.create(name + ":fraction=1", learning_rate=RATE),
    updates.adam(learning_rate=RATE),
  ):
    results.append(_flat(layered_student.adapted(tx)[1].params))
  np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("jit", [False, True])
def test_follows_the_sizes_of_the_last_dense_step(jit):
  """The whole of two key frames with optax alone and numpy's sort."""
  tx = updates.top_k(learning_rate=RATE, fraction=0.25)
  params, *results = layered_student.adapted(tx, TINY, jit=jit, times=(0, 1))
  count = round(0.25 * _flat(params).size)

  adam = optax.adam(RATE)
  ours, unravel = flatten_util.ravel_pytree(params)
  adam_state = adam.init(params)
  mask = np.isin(np.arange(ours.size), _changed(params, results[0].params))
  assert mask.sum() == count  # random; the next is the largest
  for t, result in enumerate(results):
    frame, labels = layered_student.FRAMES[t], layered_student.labels_of(t)
    loss = lambda p, frame=frame, labels=labels: losses.weighted_cross_entropy(
      TINY.apply(p, frame), labels
    )
    for _ in range(3):
      grads = jax.grad(loss)(unravel(ours))
      steps, adam_state = adam.update(grads, adam_state)
      last = _flat(steps)
      ours = ours + jnp.where(mask, last, 0)
    np.testing.assert_allclose(_flat(result.params), ours, rtol=1e-4, atol=1e-5)
    mask = np.zeros(ours.size, bool)
    mask[np.argsort(-np.abs(last))[:count]] = True


def test_equal_values_are_not_more_than_k():
  for values in (np.zeros(100), np.repeat([1.0, 2.0], 50)):
    mask = np.asarray(subsets.largest(jnp.asarray(values), 7))
    assert mask.sum() == 7 and (values[mask] == values.max()).all()


@pytest.mark.parametrize(("rank", "jit"), [(1, False), (1, True), (2, True)])
def test_change_of_kernels_has_the_rank_and_others_move_as_they_are(rank, jit):
  tx = low_rank.rank1(learning_rate=0.02, rank=rank)
  start, *results = layered_student.adapted(tx, jit=jit, times=(0, 1))
  start = pretrained.flatten(start)
  assert sorted(x.ndim for x in start.values()) == [1] * 9 + [4] * 5
  for result in results:
    for name, after in pretrained.flatten(result.params).items():
      change = np.asarray(after - start[name], float)
      if change.ndim == 4:
        values = np.linalg.svd(change.reshape(-1, change.shape[-1]))[1]
        # As many as asked for, and what is behind them is rounding.
        assert values[rank - 1] > 1e-3 * values[0] > 0
        assert values[rank] < 1e-5 * max(values[0], 0.1)
      else:
        assert np.any(change), name


def test_equals_factors_trained_by_themselves():
  """Autodiff through kernel + left @ right, with optax on the factors."""
  tx = low_rank.rank1(learning_rate=0.02)
  _, opt_state = layered_student.begin(tx)
  params, result = layered_student.adapted(tx)

  is_pair = lambda x: isinstance(x, low_rank.Factors) or x == ()
  pairs = jax.tree.leaves(opt_state.factors, is_leaf=is_pair)
  leaves, tree = jax.tree.flatten(params)
  trained = [pair or leaf for pair, leaf in zip(pairs, leaves, strict=True)]

  def whole(x, leaf):
    if not isinstance(x, low_rank.Factors):
      return x
    return leaf + jnp.reshape(x.left @ x.right, leaf.shape)

  def assemble(trained):
    return tree.unflatten(map(whole, trained, leaves))

  @jax.jit
  def step(trained, state):
    frame, labels = layered_student.FRAMES[0], layered_student.labels_of(0)
    loss = lambda trained: losses.weighted_cross_entropy(
      layered_student.STUDENT.apply(assemble(trained), frame), labels
    )
    steps, state = adam.update(jax.grad(loss)(trained), state)
    return optax.apply_updates(trained, steps), state

  adam = optax.adam(0.02)
  state = adam.init(trained)
  for _ in range(3):
    trained, state = step(trained, state)
  expected = pretrained.flatten(assemble(trained))
  for name, ours in pretrained.flatten(result.params).items():
    # Where a gradient is all rounding, Adam makes a step of it.
    close = np.isclose(ours, expected[name], rtol=1e-3, atol=1e-4)
    assert close.mean() > 0.97, name
