"""A state as arrays by name, which can be stored, compared and hashed.

A leaf's name is its path, as params.conv1.kernel. It is the same for the state,
for its shapes alone and for the dicts and lists that a file gives back, so the
types of the tree need not be stored.
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
  """Type and shape of every leaf by name, as float32[3,3,8]."""
  return {
    name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    for name, leaf in by_name(state).items()
  }


def check_specs(
  place: str, stored: dict[str, str], wanted: dict[str, str]
) -> None:
  """Refuses the `specs` of another state, naming the first leaf that differs.

  Args:
    place: where the state is stored, for the error.
    stored: as found there.
    wanted: of the state at hand.
  """
  names = [name for name in wanted if stored.get(name) != wanted[name]]
  names += [name for name in stored if name not in wanted]
  if names:
    there, here = (x.get(names[0], "missing") for x in (stored, wanted))
    more = f", and {len(names) - 1} more differ" if len(names) > 1 else ""
    raise UserError(
      f"{place} is of another state: {names[0]} is {there} there and {here} "
      f"here{more}"
    )


def _is_key(leaf):
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(state: State) -> Any:
  """A copy as numpy arrays, which outlives the state's own buffers.

  Typed keys become their bits, and arrays without elements become None.
  """
  arrays = jax.tree.map(
    lambda x: jax.random.key_data(x) if _is_key(x) else x, state
  )
  # On the CPU device_get lends the very buffers that are to be overwritten.
  return jax.tree.map(
    lambda x: np.array(x) if x.size else None, jax.device_get(arrays)
  )


def to_numpy(state: State) -> dict[str, np.ndarray]:
  """Arrays by name, keys as their bits; valid as long as the state is."""
  bits = lambda x: jax.random.key_data(x) if _is_key(x) else x
  arrays = {name: bits(x) for name, x in by_name(state).items()}
  return {n: np.asarray(x) for n, x in jax.device_get(arrays).items()}


def parameters(state: State) -> dict[str, np.ndarray]:
  """`to_numpy` of `state.params`; of the whole state where it has none."""
  return to_numpy(getattr(state, "params", state))


def to_device(arrays: dict[str, np.ndarray], abstract_state: State) -> State:
  """The state that `to_host` copied, on the default device, without weak types.

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
  """The key that an array holds the bits of; any other array as it is."""
  if not _is_key(abstract):
    return array
  kinds = []  # an abstract key does not have its kind, a traced one does
  jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), abstract)
  return jax.random.wrap_key_data(array, impl=kinds[0])


class Hashes(NamedTuple):
  """Hashes of some arrays, as hexadecimal text."""

  digest: str  # of all names, types, shapes and bits
  # Two bytes an array, in the order of their names: enough to tell which one
  # differs, where the digest says that one does.
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
  """The arrays that differ; a difference is missed in one of 65536 cases."""
  leaves = zip(_split(here.by_leaf), _split(there.by_leaf), strict=False)
  pairs = zip(sorted(names), leaves, strict=False)
  return [name for name, (a, b) in pairs if a != b]


def _split(text):
  return [text[i : i + 4] for i in range(0, len(text), 4)]
