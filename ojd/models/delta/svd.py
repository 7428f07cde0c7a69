"""Kernels as pairs of separable ones, by the singular value decomposition.

A kernel [KH, KW, I, O] is a matrix of (KH, I) rows and (KW, O) columns; a
column of taps to r channels and a row of taps behind it are its factors. What
Eckart and Young say of matrices holds for the pair: of all of r channels, the
truncated decomposition is nearest to the kernel.
"""

import jax
import jax.numpy as jnp

from ojd.models import frame_norm


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
  matrix = frame_norm.wide(as_matrix(kernel))
  u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
  root = jnp.sqrt(s[:rank])
  left, right = u[:, :rank] * root[None], root[:, None] * vt[:rank]
  return _as_kernels(left, right, kernel)


def _as_kernels(left, right, kernel):
  """Factors of the matrix as kernels, in the dtype of the kernel."""
  kh, kw, num_in, num_out = kernel.shape
  first = left.reshape(kh, 1, num_in, -1)
  second = right.reshape(-1, kw, num_out).transpose(1, 0, 2)[None]
  return first.astype(kernel.dtype), second.astype(kernel.dtype)


def join(first: jax.Array, second: jax.Array) -> jax.Array:
  """The one kernel that a pair amounts to, [KH, KW, I, O]."""
  return jnp.einsum("hir,wro->hwio", first[:, 0], second[0])
