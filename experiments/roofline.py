"""How near to its device's own limits a computation comes."""

import functools
import time

import jax
import jax.numpy as jnp

from ojd.models.student import PRECISIONS
from ojd.run import measure


def with_shares(
  figure: measure.Figure, compiled: jax.stages.Compiled, gflop: float, precision
) -> measure.Figure:
  """A figure with its share of the device's limits.

  Args:
    figure: of one call of `compiled`.
    compiled: tells which bytes its steps read and write; some come from a cache
      that a copy of the whole memory does not have, so that a share may exceed
      1.
    gflop: convolutions of a call.
    precision: of the matrix product that is the limit.
  """
  seconds = 1e-3 * figure.ms
  costs = compiled.cost_analysis() or {}
  gigabytes = costs.get("bytes accessed", 0.0) / 1e9
  peak, copied = peak_gflops(precision), peak_gigabytes()
  limits = (
    f"a matrix product reaches {peak:.0f} GFLOP/s, a copy {copied:.0f} GB/s"
  )
  return figure._replace(
    note=f"{figure.note}; {limits}",
    flop_share=round(gflop / seconds / peak, 3),
    byte_share=round(gigabytes / seconds / copied, 3) if gigabytes else None,
  )


@functools.cache
def peak_gflops(precision: str) -> float:
  """Of a matrix product on this device."""
  side = 2048 if jax.default_backend() == "cpu" else 8192
  x = jnp.ones((side, side), PRECISIONS[precision])
  product = jax.jit(lambda x: x @ x)
  return 2 * side**3 / _best_seconds(lambda: product(x)) / 1e9


@functools.cache
def peak_gigabytes(num_bytes: int = 256 << 20) -> float:
  """Read and written a second by a copy on this device."""
  x = jnp.zeros(num_bytes // 4, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  return 2 * num_bytes / _best_seconds(lambda: copy(x)) / 1e9


def _best_seconds(fn, repeats=5):
  jax.block_until_ready(fn())
  spent = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(fn())
    spent.append(time.perf_counter() - start)
  return min(spent)
