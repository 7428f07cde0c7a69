"""The norm, what cuts it off behind, and resizes; their gradients; by torch."""

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ojd.models import norm as norm_lib
from ojd.models import resize as resize_lib
from tests.reference.compare import close
from tests.reference.torch_layers import nchw, nhwc


def _case(seed, batch=2):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.standard_normal(shape)
  x = draw(batch, 7, 6, 3) * 5 + 10
  return x, draw(3), draw(3), draw(batch, 7, 6, 3)


def _value_and_grads(x, scale, bias, g, limits=norm_lib.RELU):
  norm = lambda *inputs: norm_lib.norm(*inputs, limits)[0]
  y, backward = jax.vjp(norm, x, scale, bias)
  return y, *backward(g)


def _by_torch(x, scale, bias, g, cut=F.relu):
  """Image by image, for a batch shares nothing but scale and bias."""
  scale = torch.tensor(scale, requires_grad=True)
  bias = torch.tensor(bias, requires_grad=True)
  x = nchw(x)
  norm = lambda image: F.batch_norm(
    image[None], None, None, scale, bias, training=True, eps=norm_lib.EPSILON
  )
  y = cut(torch.cat([norm(image) for image in x]))
  y.backward(nchw(g))
  return nhwc(y), nhwc(x.grad), scale.grad.numpy(), bias.grad.numpy()


@pytest.mark.parametrize(
  ("batch", "limits", "cut", "jit"),
  [
    (1, norm_lib.RELU, F.relu, False),
    (2, norm_lib.RELU, F.relu, True),
    (2, norm_lib.LINEAR, lambda x: x, False),
    (2, norm_lib.RELU6, F.relu6, False),
  ],
)
def test_value_and_gradients_equal_torch(batch, limits, cut, jit):
  x, scale, bias, g = _case(4, batch)
  case = x, 5 * scale, bias, g  # so that some reach 6
  ours = lambda *case: _value_and_grads(*case, limits)
  # In double: in single a ReLU near zero may open on one side alone.
  with jax.enable_x64(True):
    theirs = _by_torch(*case, cut)
    assert theirs[0].max() == 6 if cut is F.relu6 else theirs[0].max() > 6
    assert (theirs[0].min() < 0) == (limits is norm_lib.LINEAR)
    close((jax.jit(ours) if jit else ours)(*case), theirs, 0, 1e-10)


def test_single_precision_is_near_double():
  case = _case(0)
  single = _value_and_grads(*(x.astype(np.float32) for x in case))
  close(single, _by_torch(*case), 1e-7, 1e-4)


def test_lanes_with_their_own_scales_are_normed_alone():
  cases = [_case(seed) for seed in range(3)]
  stacked = [np.stack(x).astype(np.float32) for x in zip(*cases, strict=True)]
  together = jax.vmap(_value_and_grads)(*stacked)
  for i in range(3):
    alone = _value_and_grads(*(x[i] for x in stacked))
    close(tuple(x[i] for x in together), alone, 1e-7, 1e-5)


def test_constant_channel_answers_with_its_bias():
  x = np.full((1, 4, 5, 2), 7.0, np.float32)
  bias = np.float32([0.5, -0.5])
  y, in_x, in_scale, in_bias = _value_and_grads(
    x, np.ones(2, np.float32), bias, np.ones_like(x)
  )
  np.testing.assert_allclose(y[0, 0, 0], [0.5, 0.0], atol=1e-5)
  np.testing.assert_allclose(in_bias, [20.0, 0.0])
  assert np.isfinite(in_x).all() and np.isfinite(in_scale).all()


def test_held_norm_is_by_the_statistics_of_the_earlier_frame():
  earlier, scale, bias, _ = (x.astype(np.float32) for x in _case(0))
  later = _case(1)[0].astype(np.float32)
  y, held = norm_lib.norm(earlier, scale, bias)
  np.testing.assert_array_equal(norm_lib.held_norm(earlier, held), y)
  mean = earlier.mean((1, 2), keepdims=True)
  rate = 1 / np.sqrt(earlier.var((1, 2), keepdims=True) + norm_lib.EPSILON)
  expected = np.maximum((later - mean) * rate * scale + bias, 0)
  for limits, high in ((norm_lib.RELU, np.inf), (norm_lib.RELU6, 6)):
    ours = norm_lib.held_norm(later, held, limits)
    np.testing.assert_allclose(ours, np.minimum(expected, high), atol=1e-4)


SIZES = [
  ((4, 5), (7, 9)),
  ((3, 6), (11, 6)),
  ((1, 2), (2, 3)),
  ((5, 1), (9, 2)),
  ((9, 7), (5, 4)),
]


def _draw(shape, seed):
  rng = np.random.default_rng(seed)
  return rng.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("size", "size_out"), SIZES)
@pytest.mark.parametrize("resize", [resize_lib.resize, resize_lib.resize_few])
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
