"""Hints to XLA's CPU back end, which does not always fuse to advantage."""

from typing import TypeVar

from jax import lax

T = TypeVar("T")  # a pytree of arrays


def cpu_barrier(x: T) -> T:
  """`x`, which a CPU computes once and keeps, however many steps read it.

  Without it the CPU back end fuses the computation into every reader and does
  it again in each. Other devices' compilers fuse well by themselves.
  """
  return lax.platform_dependent(
    x, cpu=lax.optimization_barrier, default=lambda x: x
  )
