"""Trees of arrays beside each other."""

import jax
import numpy as np


def equal(ours, theirs):
  """Bit for bit."""
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def close(ours, theirs, rtol=1e-5, atol=1e-7):
  """By default but for the rounding of programs that were compiled apart."""
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    ours,
    theirs,
  )
