"""Coordinate descent, against Adam and a sort by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import flatten_util

from ojd import losses, updates
from ojd.updates import top_k
from tests.reference import layered_student, tiny_student

STUDENT = tiny_student.make()
RATE = 0.05
NUM_UPDATES = 3


def _flat(tree):
  return np.asarray(flatten_util.ravel_pytree(tree)[0])


def _changed(before, after):
  return np.flatnonzero(_flat(before) != _flat(after))


@pytest.mark.parametrize("jit", [False, True])
def test_at_most_k_coordinates_move_on_a_key_frame(jit):
  tx = top_k.top_k(RATE)
  params, opt_state = layered_student.begin(tx)
  learn = layered_student.adapting(tx, jit=jit)
  count = round(0.05 * _flat(params).size)
  chosen = []
  for t in range(2):
    result = learn(params, opt_state, t)
    assert int(result.num_updates) == 3
    chosen.append(_changed(params, result.params))
    assert 0.8 * count < len(chosen[-1]) <= count
    params, opt_state = result.params, result.opt_state
  assert set(chosen[0]) != set(chosen[1])


def test_follows_the_sizes_of_the_last_dense_step():
  """The whole of two key frames with optax alone and numpy's sort."""
  tx = top_k.top_k(RATE, 0.25)
  params, opt_state = layered_student.begin(tx, STUDENT)
  count = round(0.25 * _flat(params).size)
  learn = layered_student.adapting(tx, STUDENT, NUM_UPDATES)
  first = learn(params, opt_state, 0)

  adam = optax.adam(RATE)
  ours, unravel = flatten_util.ravel_pytree(params)
  adam_state = adam.init(params)
  mask = np.isin(np.arange(ours.size), _changed(params, first.params))
  assert mask.sum() == count  # random; the next is the largest
  results = [first, learn(first.params, first.opt_state, 1)]
  for t, result in enumerate(results):
    frame, labels = layered_student.FRAMES[t], layered_student.labels_of(t)
    loss = lambda p, frame=frame, labels=labels: losses.weighted_cross_entropy(
      STUDENT.apply(p, frame), labels
    )
    for _ in range(NUM_UPDATES):
      grads = jax.grad(loss)(unravel(ours))
      steps, adam_state = adam.update(grads, adam_state)
      last = _flat(steps)
      ours = ours + jnp.where(mask, last, 0)
    np.testing.assert_allclose(_flat(result.params), ours, rtol=1e-4, atol=1e-5)
    mask = np.zeros(ours.size, bool)
    mask[np.argsort(-np.abs(last))[:count]] = True


def test_all_coordinates_are_adam():
  results = []
  for tx in (top_k.top_k(RATE, 1.0), updates.adam(RATE)):
    params, opt_state = layered_student.begin(tx, STUDENT)
    learn = layered_student.adapting(tx, STUDENT)
    results.append(_flat(learn(params, opt_state, 0).params))
  np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-7)


def test_equal_values_are_not_more_than_k():
  for values in (np.zeros(100), np.repeat([1.0, 2.0], 50)):
    mask = np.asarray(top_k.largest(jnp.asarray(values), 7))
    assert mask.sum() == 7 and (values[mask] == values.max()).all()
