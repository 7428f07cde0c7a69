"""What the gate calls a difference."""

import jax
import jax.numpy as jnp

from tests.golden import probe, same_as


def _lowered(function, *shapes):
  return probe.normalized(jax.jit(function).lower(*shapes).as_text())


def test_names_do_not_count_and_operations_do():
  x = jax.ShapeDtypeStruct((3,), jnp.float32)

  def one(first):
    return {"a": jnp.where(first > 0, first, 0)}

  def other(second):
    return {"b": jnp.where(second > 0, second, 0)}

  def third(x):
    return {"a": jnp.where(x >= 0, x, 0)}

  assert _lowered(one, x) == _lowered(other, x)
  assert _lowered(one, x) != _lowered(third, x)


def test_large_constants_count_by_their_bits():
  def adds(seed):
    table = jax.random.normal(jax.random.key(seed), (64,))
    return _lowered(lambda x: x + table, jax.ShapeDtypeStruct((64,), "float32"))

  assert adds(0) == adds(0) != adds(1)


def test_first_difference_is_named_by_its_place():
  here = {"rows": [{"t": 0, "loss": float("nan")}, {"t": 1}], "masks": "a"}
  same = {"rows": [{"t": 0, "loss": float("nan")}, {"t": 1}], "masks": "a"}
  assert same_as.first_difference(here, same) == ""
  same["rows"][1]["t"] = 2
  words = same_as.first_difference(here, same)
  assert words == "/rows/1/t is 1 here, 2 there"
  del same["rows"][1]["t"]
  assert same_as.first_difference(here, same) == "/rows/1/t is only here"


def test_cases_that_fail_or_are_gone_differ_and_new_ones_do_not():
  there = {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}}
  here = {"a": {"x": 1}, "b": {"error": "it broke"}, "new": {"x": 1}}
  found = same_as.compare(here, there)
  assert found == {"b": "here: it broke", "c": "the case is gone"}
