"""Adapters: the rank of what changes, and the factors trained by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ojd import losses
from ojd.models import pretrained
from ojd.updates import low_rank
from tests.reference import layered_student

STUDENT = layered_student.STUDENT
RATE = 0.02


@pytest.mark.parametrize(("rank", "jit"), [(1, False), (1, True), (2, True)])
def test_change_of_kernels_has_the_rank_and_others_move_as_they_are(rank, jit):
  tx = low_rank.rank1(learning_rate=RATE, rank=rank)
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
  tx = low_rank.rank1(learning_rate=RATE)
  params, opt_state = layered_student.begin(tx)
  result = layered_student.adapting(tx)(params, opt_state, 0)

  is_pair = lambda x: isinstance(x, low_rank.Factors) or x == ()
  pairs = jax.tree.leaves(opt_state.factors, is_leaf=is_pair)
  leaves, tree = jax.tree.flatten(params)
  trained = [
    dict(zip(("left", "right"), pair, strict=True)) if pair else {"whole": leaf}
    for pair, leaf in zip(pairs, leaves, strict=True)
  ]

  def assemble(trained):
    return tree.unflatten(
      x["whole"]
      if "whole" in x
      else leaf + jnp.reshape(x["left"] @ x["right"], leaf.shape)
      for x, leaf in zip(trained, leaves, strict=True)
    )

  @jax.jit
  def step(trained, state):
    frame, labels = layered_student.FRAMES[0], layered_student.labels_of(0)
    loss = lambda trained: losses.weighted_cross_entropy(
      STUDENT.apply(assemble(trained), frame), labels
    )
    steps, state = adam.update(jax.grad(loss)(trained), state)
    return optax.apply_updates(trained, steps), state

  adam = optax.adam(RATE)
  state = adam.init(trained)
  for _ in range(3):
    trained, state = step(trained, state)
  expected = pretrained.flatten(assemble(trained))
  for name, ours in pretrained.flatten(result.params).items():
    # Where a gradient is all rounding, Adam makes a step of it.
    close = np.isclose(ours, expected[name], rtol=1e-3, atol=1e-4)
    assert close.mean() > 0.97, name
