"""Kernels as pairs of separable ones, by the singular value decomposition.

A kernel [KH, KW, I, O] is a matrix of (KH, I) rows and (KW, O) columns; a
column of taps to r channels and a row of taps behind it are its factors. What
Eckart and Young say of matrices holds for the pair: of all of r channels, the
truncated decomposition is nearest to the kernel.
"""

import jax
import jax.numpy as jnp

from ojd.models import norm


def as_matrix(kernel: jax.Array) -> jax.Array:
  """[KH, KW, I, O] -> [KH * I, KW * O]."""
  kh, kw, num_in, num_out = kernel.shape
  return kernel.transpose(0, 2, 1, 3).reshape(kh * num_in, kw * num_out)


def split(kernel: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
  """The best pair of `rank` channels between: [KH, 1, I, r], [1, KW, r, O].

  Args:
    kernel: [KH, KW, I, O] float.
    rank: r, at most min(KH * I, KW * O).
  """
  matrix = norm.wide(as_matrix(kernel))
  u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
  root = jnp.sqrt(s[:rank])
  left, right = u[:, :rank] * root[None], root[:, None] * vt[:rank]
  return _as_kernels(left, right, kernel)


def refine(
  kernel: jax.Array, first: jax.Array, second: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """A pair nearer to the kernel, by least squares for each half in turn.

  From the best pair of a kernel that has changed a little since it is as good
  as a decomposition, for a small part of the time.
  """
  matrix = norm.wide(as_matrix(kernel))
  rank = first.shape[-1]
  right = norm.wide(second[0]).transpose(1, 0, 2).reshape(rank, -1)
  left = _solve(right, matrix.T).T
  right = _solve(left.T, matrix)
  return _as_kernels(left, right, kernel)


def _solve(rows, target):
  """x of least |rows^T x - target|, of [r, n] and [n, m]: [r, m]."""
  gram = rows @ rows.T
  # Rows that are not needed may be nought: that must divide nothing.
  ridge = 1e-6 * jnp.trace(gram) / len(gram) + jnp.finfo(gram.dtype).tiny
  gram += ridge * jnp.eye(len(gram), dtype=gram.dtype)
  return jnp.linalg.solve(gram, rows @ target)


def _as_kernels(left, right, kernel):
  """Factors of the matrix as kernels, in the dtype of the kernel."""
  kh, kw, num_in, num_out = kernel.shape
  first = left.reshape(kh, 1, num_in, -1)
  second = right.reshape(-1, kw, num_out).transpose(1, 0, 2)[None]
  return first.astype(kernel.dtype), second.astype(kernel.dtype)
