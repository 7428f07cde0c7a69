"""A state as arrays by name, to store, compare and hash it.

The name of a leaf is its path, as in params.conv1.kernel. A state, its shapes,
and the dicts and lists of a file have the same names, so a file need not store
the types of the tree.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ojd.distill import State
from ojd.errors import UserError


def by_name(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by name."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  named = {_name(path): leaf for path, leaf in leaves}
  if len(named) < len(leaves):
    raise ValueError("two leaves of the state have the same name")
  return named


def _name(path):
  return jax.tree_util.keystr(path, simple=True, separator=".")


def specs(state: State) -> dict[str, str]:
  """Type and shape of every leaf by name, as in float32[3,3,8]."""
  return {
    name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    for name, leaf in by_name(state).items()
  }


def check_specs(
  place: str, stored: dict[str, str], wanted: dict[str, str]
) -> None:
  """Raises a UserError if two `specs` differ; it names the first leaf.

  Args:
    place: of the stored state, for the error.
    stored: of the stored state.
    wanted: of the current state.
  """
  names = [name for name in wanted if stored.get(name) != wanted[name]]
  names += [name for name in stored if name not in wanted]
  if names:
    there, here = (x.get(names[0], "missing") for x in (stored, wanted))
    more = f", and {len(names) - 1} more differ" if len(names) > 1 else ""
    raise UserError(
      f"{place} has another state: {names[0]} is {there} there and {here} "
      f"here{more}"
    )


def _is_key(leaf):
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(state: State) -> Any:
  """Copies a state to numpy arrays, which outlive its buffers.

  Typed keys become their bits, and empty arrays become None.
  """
  arrays = jax.tree.map(
    lambda x: jax.random.key_data(x) if _is_key(x) else x, state
  )
  # On the CPU device_get returns the state's own buffers, so they are copied.
  return jax.tree.map(
    lambda x: np.array(x) if x.size else None, jax.device_get(arrays)
  )


def to_numpy(state: State) -> dict[str, np.ndarray]:
  """Arrays by name, with keys as their bits; valid as long as the state."""
  bits = lambda x: jax.random.key_data(x) if _is_key(x) else x
  arrays = {name: bits(x) for name, x in by_name(state).items()}
  return {n: np.asarray(x) for n, x in jax.device_get(arrays).items()}


def parameters(state: State) -> dict[str, np.ndarray]:
  """`to_numpy` of `state.params`, or of the whole state if it has none."""
  return to_numpy(getattr(state, "params", state))


def to_device(arrays: dict[str, np.ndarray], abstract_state: State) -> State:
  """Restores a state that `to_host` copied, without weak types.

  The arrays are on the default device.

  Args:
    arrays: the copy by name.
    abstract_state: tree, types and shapes of the state.
  """

  def find(path, leaf):
    if leaf.size:
      return arrays[_name(path)]
    bits = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return np.zeros(bits.shape, bits.dtype)

  host = jax.tree_util.tree_map_with_path(find, abstract_state)
  return jax.tree.map(_typed, jax.device_put(host), abstract_state)


def _typed(array, abstract):
  """Converts the bits of a key to the key; returns other arrays unchanged."""
  if not _is_key(abstract):
    return array
  kinds = []  # only a traced key knows its kind, an abstract one does not
  jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), abstract)
  return jax.random.wrap_key_data(array, impl=kinds[0])


class Hashes(NamedTuple):
  """Hashes of some arrays, as hexadecimal text."""

  digest: str  # of all names, types, shapes and bits
  # Two bytes per array, in the order of their names. They show which array
  # differs if the digests differ.
  by_leaf: str


def hashes(arrays: dict[str, np.ndarray]) -> Hashes:
  """Hashes of all arrays together and of each."""
  total, by_leaf = hashlib.blake2b(digest_size=16), b""
  for name in sorted(arrays):
    x = arrays[name]
    leaf = hashlib.blake2b(x.reshape(-1).view(np.uint8), digest_size=16)
    total.update(f"{name} {x.dtype}{x.shape} ".encode() + leaf.digest())
    by_leaf += leaf.digest()[:2]
  return Hashes(total.hexdigest(), by_leaf.hex())


def differing(names: Iterable[str], here: Hashes, there: Hashes) -> list[str]:
  """The arrays that differ; one of 65536 differences is missed."""
  leaves = zip(_split(here.by_leaf), _split(there.by_leaf), strict=False)
  pairs = zip(sorted(names), leaves, strict=False)
  return [name for name, (a, b) in pairs if a != b]


def _split(text):
  return [text[i : i + 4] for i in range(0, len(text), 4)]
