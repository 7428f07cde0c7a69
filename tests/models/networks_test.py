"""The networks against torch ones that were written from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd.models import ddrnet, hrnet, jitnet, shadow
from ojd.models.pretrained import flatten
from tests.reference import (
  ddrnet_torch,
  hrnet_torch,
  jitnet_torch,
  torch_layers,
)
from tests.reference.torch_layers import error, nchw, pixels, worst

C = 3
JITNET = jitnet.JITNet(C)


def _frames(height, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (1, height, width, 3), np.uint8)


def _weights(frames):
  """Of each logit in the loss: so its gradient reaches every parameter."""
  rng = np.random.default_rng(1)
  return rng.standard_normal((*frames.shape[:3], C))


def _logits_and_gradients(model, params, frames, weights):
  def loss_fn(params):
    logits = model.apply({"params": params}, frames)
    return jnp.mean(logits * weights), logits

  grads, logits = jax.jit(jax.grad(loss_fn, has_aux=True))(params)
  return np.asarray(logits), flatten(jax.tree.map(np.asarray, grads))


def _single(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


@pytest.mark.parametrize(
  ("model", "net", "size"),
  [
    (JITNET, jitnet_torch.JITNet, (96, 160)),
    (JITNET, jitnet_torch.JITNet, (97, 131)),
    (shadow.ShadowStudent(C), jitnet_torch.Shadow, (45, 70)),
  ],
)
def test_logits_and_gradients_equal_torch(model, net, size):
  frames = _frames(*size)
  weights, params = _weights(frames), torch_layers.stirred(model, frames)
  net = torch_layers.load(net(C), params)
  expected = net(nchw(frames.astype(float), requires_grad=False))
  (expected * nchw(weights, requires_grad=False)).mean().backward()
  expected = torch_layers.nhwc(expected)
  # In single precision a ReLU whose input is nearly zero may be open in one
  # and closed in the other, so the gradients are compared in double.
  with jax.enable_x64(True):
    exact, grads = _logits_and_gradients(
      model, params, frames.astype(float), weights
    )
  assert exact.dtype == np.float64 and error(exact, expected) < 1e-9
  assert worst(grads, torch_layers.as_flax(net, lambda p: p.grad))[0] < 1e-9
  in_single = _single((params, frames, weights))
  single, rough = _logits_and_gradients(model, *in_single)
  assert single.dtype == np.float32 and error(single, expected) < 1e-4
  assert worst(rough, grads)[0] < 1e-4


@pytest.mark.parametrize(
  ("model", "net", "size"),
  [
    # Odd on purpose: 130 pixels halve to 65, 33, 17, 9, 5 and 3. Narrow: four
    # planes, looks of 16 channels, a head of 8.
    (
      ddrnet.DDRNet23Slim(C, 0.125),
      lambda: ddrnet_torch.DDRNet(C, 4, 16, 8, (3, 4)),
      (130, 200),
    ),
    (
      hrnet.HRNetW18Small(C, 0.11),
      lambda: hrnet_torch.HRNet(C, (2, 4, 8, 16), 7, (1, 1)),
      (75, 100),
    ),
  ],
)
def test_logits_equal_torch(model, net, size, monkeypatch):
  """Of HRNet one module a stage: as many again take as long to compile."""
  monkeypatch.setattr(hrnet, "NUM_MODULES", (1, 1, 1))
  frames = _frames(*size).astype(float)
  params = torch_layers.stirred(model, frames)
  net = torch_layers.load(net(), params)
  expected = net(pixels(nchw(frames, requires_grad=False)))
  with jax.enable_x64(True):
    apply = jax.jit(lambda p, x: model.apply({"params": p}, x))
    ours = np.asarray(apply(params, frames))
  assert ours.shape == (1, *size, C)
  assert error(ours, torch_layers.nhwc(expected)) < 1e-9


@pytest.mark.parametrize("size", [(1, 2), (2, 5), (9, 4)])
def test_pyramid_equals_torch_where_windows_are_left_with_a_pixel(size):
  model = ddrnet.Pyramid(5, 6)
  x = np.random.default_rng(3).standard_normal((1, *size, 7))
  params = torch_layers.stirred(model, x.astype(np.float32))
  net = torch_layers.load(ddrnet_torch.Pyramid(7, 5, 6, size), params)
  with jax.enable_x64(True):
    ours = np.asarray(model.apply({"params": params}, x))
  assert error(ours, torch_layers.nhwc(net(nchw(x)))) < 1e-9


def test_logits_of_jitnet_are_the_same_resized_early_or_in_a_batch():
  """The published order, and other frames in the batch."""
  frames = _frames(33, 47)
  params = _single(torch_layers.stirred(JITNET, frames))
  both = np.concatenate([255 - frames, frames])
  apply = lambda model, frames: model.apply({"params": params}, frames)
  first = apply(JITNET, frames)
  for plain in (
    apply(JITNET.clone(resize_logits=False), frames),
    apply(JITNET, both)[1:],
  ):
    scale = np.abs(plain).max()
    np.testing.assert_allclose(first, plain, atol=1e-5 * scale)
