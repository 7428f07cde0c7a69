"""Hashes of arrays: what they distinguish, and what they do not."""

import hashlib
from typing import NamedTuple

import jax
import numpy as np

from ojd.run import state_arrays

KERNEL = np.arange(12, dtype=np.float32).reshape(3, 4)
BIAS = np.zeros(4, np.float32)
PARAMS = {"b": {"kernel": KERNEL, "bias": BIAS}, "a": KERNEL}


def _digest(tree):
  return state_arrays.hashes(state_arrays.to_numpy(tree)).digest


class _Layer(NamedTuple):
  kernel: np.ndarray
  bias: np.ndarray


def test_digest_is_that_of_names_types_shapes_and_bytes():
  """By hand, so that logs and checkpoints that exist stay readable."""
  total = hashlib.blake2b(digest_size=16)
  for name, x in (("a", KERNEL), ("b.bias", BIAS), ("b.kernel", KERNEL)):
    own = hashlib.blake2b(x.tobytes(), digest_size=16).digest()
    total.update(f"{name} float32{x.shape} ".encode() + own)
  for same in (
    *(
      PARAMS,
      jax.device_put(PARAMS),
      PARAMS | {"a": np.asfortranarray(KERNEL)},
    ),
    {"a": KERNEL, "b": _Layer(KERNEL, BIAS)},
  ):
    assert _digest(same) == total.hexdigest()


def test_hash_changes_with_any_leaf_shape_type_or_name():
  others = (
    *(KERNEL.T.copy(), KERNEL.reshape(4, 3), KERNEL.reshape(-1)),
    *(KERNEL.view(np.int32), KERNEL.astype(np.float64)),
    np.nextafter(KERNEL, np.float32(99)),
    np.where(KERNEL == 0, np.float32(-0.0), KERNEL),
  )
  trees = [PARAMS, *(PARAMS | {"a": other} for other in others)]
  for layer in (
    *({"bias": BIAS[:3]}, {"offset": BIAS}, {}),
    {"bias": BIAS, "more": np.zeros(0, np.float32)},
  ):
    trees.append(PARAMS | {"b": {"kernel": KERNEL} | layer})
  trees.append({"a": KERNEL, "b": {"kernel": KERNEL}, "bias": BIAS})
  trees.append(PARAMS | {"c": np.float32(0)})
  assert len({_digest(tree) for tree in trees}) == len(trees) == 14
