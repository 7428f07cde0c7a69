"""Resizes and their gradients against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch.nn.functional as F

from ojd.models import resize as resize_lib
from tests.reference.compare import close
from tests.reference.torch_layers import nchw, nhwc

RESIZES = [resize_lib.resize, resize_lib.resize_few]
SIZES = [
  ((4, 5), (8, 10)),
  ((4, 5), (7, 9)),
  ((3, 6), (11, 6)),
  ((1, 2), (2, 3)),
  ((5, 1), (9, 2)),
  ((9, 7), (5, 4)),
  ((6, 6), (6, 13)),
]


def _draw(shape, seed):
  rng = np.random.default_rng(seed)
  return rng.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("size", "size_out"), SIZES)
@pytest.mark.parametrize("resize", RESIZES)
def test_resize_and_gradient_equal_torch(resize, size, size_out, jit):
  x, g = _draw((2, *size, 3), 0), _draw((2, *size_out, 3), 1)
  tx = nchw(x)
  ty = F.interpolate(tx, size_out, mode="bilinear", align_corners=True)
  ty.backward(nchw(g))

  def value_and_grad(x, g):
    y, backward = jax.vjp(lambda x: resize(x, size_out), x)
    return y, *backward(g)

  ours = (jax.jit(value_and_grad) if jit else value_and_grad)(x, g)
  close(ours, (nhwc(ty), nhwc(tx.grad)), 1e-7, 1e-5)


@pytest.mark.parametrize("resize", RESIZES)
def test_constants_corners_and_lanes_stay(resize):
  x = _draw((3, 1, 4, 6, 2), 0)
  y = resize(x[0], (9, 12))
  np.testing.assert_allclose(y[:, ::8, ::11], x[0, :, ::3, ::5], rtol=1e-6)
  np.testing.assert_allclose(resize(jnp.ones_like(x[0]), (9, 12)), 1.0)
  together = jax.vmap(lambda x: resize(x, (9, 12)))(x)
  for lane, alone in zip(together, x, strict=True):
    np.testing.assert_allclose(lane, resize(alone, (9, 12)), rtol=1e-6)
