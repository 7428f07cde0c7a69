"""What the gate calls a difference."""

import copy

import jax
import jax.numpy as jnp

from tests.golden import probe, same_as


def _lowered(function, *shapes):
  return probe.normalized(jax.jit(function).lower(*shapes).as_text())


def test_names_do_not_count_and_operations_do():
  x = jax.ShapeDtypeStruct((3,), jnp.float32)
  one = _lowered(lambda first: {"a": jnp.where(first > 0, first, 0)}, x)
  other = _lowered(lambda second: {"b": jnp.where(second > 0, second, 0)}, x)
  third = _lowered(lambda x: {"a": jnp.where(x >= 0, x, 0)}, x)
  assert one == other != third


def test_large_constants_count_by_their_bits():
  def adds(seed):
    table = jax.random.normal(jax.random.key(seed), (64,))
    return _lowered(lambda x: x + table, jax.ShapeDtypeStruct((64,), "float32"))

  assert adds(0) == adds(0) != adds(1)


def test_first_difference_is_named_by_its_place():
  here = {"rows": [{"t": 0, "loss": float("nan")}, {"t": 1}], "masks": "a"}
  there = copy.deepcopy(here)
  there["rows"][0]["loss"] = float("nan")
  assert same_as.first_difference(here, there) == ""
  there["rows"][1]["t"] = 2
  words = same_as.first_difference(here, there)
  assert words == "/rows/1/t is 1 here, 2 there"
  del there["rows"][1]["t"]
  assert same_as.first_difference(here, there) == "/rows/1/t is only here"


def test_cases_that_fail_or_are_gone_differ_and_new_ones_do_not():
  there = dict.fromkeys("abc", {"x": 1})
  here = {"a": {"x": 1}, "b": {"error": "it broke"}, "new": {"x": 1}}
  found = same_as.compare(here, there)
  assert found == {"b": "here: it broke", "c": "the case is gone"}
