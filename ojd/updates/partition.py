"""Parameters in two trees: the trained and the frozen ones.

Both have the structure of the whole, with None for the leaves of the other, so
that the names of leaves stay and optax sees only the trained ones.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax

Params = Any  # a pytree of arrays


def split(
  params: Params,
  trains: Callable[[Collection[str]], Collection[str]] | None = None,
) -> tuple[Params, Params]:
  """The trained parameters, and the others.

  Args:
    params: all of them.
    trains: which of the names "layer/.../leaf" train; None: all.
  """
  all_names = names(params)
  wanted = set(all_names if trains is None else trains(all_names))
  return tuple(
    jax.tree.map_with_path(
      lambda path, x, is_in=is_in: (
        x if (_name(path) in wanted) == is_in else None
      ),
      params,
    )
    for is_in in (True, False)
  )


def merge(trained: Params, others: Params) -> Params:
  """The whole tree; where both hold a parameter, the first one's."""
  return jax.tree.map(
    lambda a, b: b if a is None else a,
    trained,
    others,
    is_leaf=lambda x: x is None,
  )


def names(params: Params) -> list[str]:
  """The names "layer/.../leaf" of all leaves that are not None."""
  return [_name(path) for path, _ in jax.tree.leaves_with_path(params)]


def map_named(
  change: Callable[[str, jax.Array], jax.Array], params: Params
) -> Params:
  """Each parameter changed by its name and value."""
  return jax.tree.map_with_path(lambda path, x: change(_name(path), x), params)


def _name(path):
  return jax.tree_util.keystr(path, simple=True, separator="/")
