"""Hashes of arrays: what they tell apart, and what they do not."""

import hashlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from ojd.run import state_arrays


def _digest(tree):
  return state_arrays.hashes(state_arrays.to_numpy(tree)).digest


class _Layer(NamedTuple):
  kernel: np.ndarray
  bias: np.ndarray


def _params():
  kernel = np.arange(12, dtype=np.float32).reshape(3, 4)
  return {"b": {"kernel": kernel, "bias": np.zeros(4, np.float32)}, "a": kernel}


def test_hash_tells_values_not_containers():
  params = _params()
  first = _digest(params)
  assert bytes.fromhex(first).hex() == first and len(first) == 32
  on_device = {
    "a": jnp.asarray(params["a"]),
    "b": {name: jnp.asarray(x) for name, x in params["b"].items()},
  }
  assert _digest(on_device) == first
  as_tuple = {"a": params["a"], "b": _Layer(**params["b"])}
  assert _digest(as_tuple) == first
  fortran = {**params, "a": np.asfortranarray(params["a"])}
  assert _digest(fortran) == first


def _changed_params():
  bias, kernel = np.zeros(4, np.float32), _params()["a"]
  for other in (
    kernel.T.copy(),
    kernel.reshape(4, 3),
    kernel.reshape(-1),
    kernel.view(np.int32),
    kernel.astype(np.float64),
    np.nextafter(kernel, np.float32(99)),
    np.where(kernel == 0, np.float32(-0.0), kernel),
  ):
    yield {**_params(), "a": other}
  yield {**_params(), "b": {"kernel": kernel, "bias": bias[:3]}}
  yield {**_params(), "b": {"kernel": kernel, "offset": bias}}
  yield {**_params(), "b": {"kernel": kernel}}
  yield {**_params(), "b": {"kernel": kernel}, "bias": bias}
  yield {**_params(), "c": np.zeros(0, np.float32)}
  yield {**_params(), "c": np.float32(0)}


def test_hash_changes_with_any_leaf_shape_type_or_name():
  trees = [_params(), *_changed_params()]
  assert len({_digest(tree) for tree in trees}) == len(trees)


def test_one_changed_array_is_named():
  before = state_arrays.hashes(state_arrays.to_numpy(_params()))
  changed = {**_params(), "a": np.float32(1) + _params()["a"]}
  arrays = state_arrays.to_numpy(changed)
  now = state_arrays.hashes(arrays)
  assert state_arrays.differing(arrays, now, before) == ["a"]
  assert state_arrays.differing(arrays, now, now) == []


def test_digest_is_that_of_names_types_shapes_and_bytes():
  """By hand, so that logs and checkpoints that exist stay readable."""
  total = hashlib.blake2b(digest_size=16)
  for name, x in (
    ("a", _params()["a"]),
    ("b.bias", _params()["b"]["bias"]),
    ("b.kernel", _params()["b"]["kernel"]),
  ):
    own = hashlib.blake2b(x.tobytes(), digest_size=16).digest()
    total.update(f"{name} float32{x.shape} ".encode() + own)
  assert _digest(_params()) == total.hexdigest()


def test_two_arrays_of_one_name_are_refused():
  with pytest.raises(ValueError, match="same name"):
    _digest({"a.b": np.zeros(1), "a": {"b": np.zeros(1)}})
