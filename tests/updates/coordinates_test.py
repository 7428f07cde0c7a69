"""Adam on coordinates chosen once: which ones, and that they are Adam's."""

import jax
import numpy as np
import pytest
from jax import flatten_util

from ojd import updates
from ojd.updates import partition
from tests.reference import layered_student

FRACTION, RATE = 0.1, 0.01
NAMES = ("first", "last", "both", "scattered")


def _flat(tree):
  return np.asarray(flatten_util.ravel_pytree(tree)[0])


def _moved(name, fraction=FRACTION, num_keys=2):
  """Where parameters moved over key frames, and where they are."""
  tx = updates.VARIANTS[name].factory(RATE, fraction)
  params, opt_state = layered_student.begin(tx)
  first, learn = _flat(params), layered_student.adapting(tx)
  for t in range(num_keys):
    result = learn(params, opt_state, t)
    params, opt_state = result.params, result.opt_state
  return _flat(params) != first, params


@pytest.mark.parametrize("name", NAMES)
def test_a_fraction_moves_and_it_is_always_the_same(name):
  moved, params = _moved(name)
  count = round(FRACTION * moved.size)
  assert 0.7 * count < moved.sum() <= count + 1
  layers = [
    path.split("/")[0]
    for path, leaf in zip(
      partition.names(params), jax.tree.leaves(params), strict=True
    )
    for _ in range(leaf.size)
  ]
  there = {layer for layer, is_in in zip(layers, moved, strict=True) if is_in}
  ends = {"first": ("conv1", "logits"), "last": ("logits", "conv1")}
  if name in ends:
    near, far = ends[name]
    assert near in there and far not in there
  else:
    assert {"conv1", "logits"} <= there


@pytest.mark.parametrize("name", NAMES)
def test_all_coordinates_are_adam(name):
  results = []
  for tx in (updates.VARIANTS[name].factory(RATE, 1.0), updates.adam(RATE)):
    params, opt_state = layered_student.begin(tx)
    learn = layered_student.adapting(tx)
    results.append(_flat(learn(params, opt_state, 0).params))
  np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-7)
