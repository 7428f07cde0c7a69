"""A state as plain arrays by name: what can be kept on a disk and compared.

A leaf's name is its path, as params.conv1.kernel. It is the same for the state,
for its shapes alone and for the dicts and lists that a file gives back, so that
the types of the tree need not be stored: whoever restores it knows them.
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ojd.distill import State
from ojd.errors import RequestError


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
    raise RequestError(
      f"{place} is of another state: {names[0]} is {there} there and {here} "
      f"here{more}"
    )


def _is_key(leaf):
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(state: State) -> Any:
  """A copy as numpy arrays, which outlives the state's own buffers.

  Typed keys become their bits, and arrays without elements None.
  """
  arrays = jax.tree.map(
    lambda x: jax.random.key_data(x) if _is_key(x) else x, state
  )
  # On the CPU device_get lends the very buffers that are to be overwritten.
  return jax.tree.map(
    lambda x: np.array(x) if x.size else None, jax.device_get(arrays)
  )


def to_device(arrays: dict[str, np.ndarray], abstract_state: State) -> State:
  """The state of `to_host`, on the default device; no type is weak any more.

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
  """The key that an array was made from; any other as it is."""
  if not _is_key(abstract):
    return array
  kinds = []  # an abstract key does not tell its own, a traced one does
  jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), abstract)
  return jax.random.wrap_key_data(array, impl=kinds[0])


def digest(arrays: dict[str, np.ndarray]) -> str:
  """A hash of all names, types, shapes and bits."""
  result = hashlib.blake2b(digest_size=16)
  for name in sorted(arrays):
    x = arrays[name]
    result.update(f"{name} {x.dtype}{x.shape} ".encode())
    result.update(x.reshape(-1).view(np.uint8))
  return result.hexdigest()
