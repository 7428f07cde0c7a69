"""Weighted cross-entropy against torch, and its gradient in three ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ojd import losses
from ojd.types import IGNORE, Labels

H, W, C = 6, 7, 4


def _example(seed, scale=3.0):
  """Logits and labels, a third of the pixels ignored."""
  rng = np.random.default_rng(seed)
  logits = (scale * rng.standard_normal((H, W, C))).astype(np.float32)
  classes = rng.integers(0, C, (H, W)).astype(np.uint8)
  weights = rng.choice(np.float32([0.0, 1.0, 5.0]), (H, W))
  classes[weights == 0] = IGNORE
  return logits, Labels(classes, weights)


def _torch_loss(logits, labels):
  """Loss and gradient by torch, in double precision."""
  logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
  classes = np.where(labels.weights > 0, labels.classes, 0).astype(np.int64)
  entropy = torch.nn.functional.cross_entropy(
    logits.reshape(-1, C),
    torch.from_numpy(classes).reshape(-1),
    reduction="none",
  )
  weights = torch.tensor(labels.weights, dtype=torch.float64).reshape(-1)
  loss = (entropy * weights).sum() / (weights > 0).sum()
  loss.backward()
  return loss.item(), logits.grad.numpy()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradient_equal_torch(seed, jit):
  logits, labels = _example(seed)
  function = jax.value_and_grad(losses.weighted_cross_entropy)
  loss, grad = (jax.jit(function) if jit else function)(logits, labels)
  expected_loss, expected_grad = _torch_loss(logits, labels)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
  np.testing.assert_allclose(grad, expected_grad, rtol=1e-4, atol=1e-7)


def test_gradient_equals_finite_differences():
  logits, labels = _example(0)
  step = 1e-5
  with jax.enable_x64(True):
    logits = jnp.asarray(logits, jnp.float64)
    loss = jax.jit(lambda x: losses.weighted_cross_entropy(x, labels))
    grad = np.asarray(jax.grad(loss)(logits)).ravel()
    for i in range(logits.size):
      nudge = np.zeros(logits.size)
      nudge[i] = step
      nudge = nudge.reshape(logits.shape)
      slope = (loss(logits + nudge) - loss(logits - nudge)) / (2 * step)
      np.testing.assert_allclose(grad[i], slope, atol=1e-8)


def test_loss_by_hand():
  # Two even classes cost log 2 each; the third pixel does not count.
  logits = np.zeros((1, 3, 2), np.float32)
  labels = Labels(
    np.array([[0, 1, IGNORE]], np.uint8), np.float32([[5.0, 1.0, 0.0]])
  )
  loss = losses.weighted_cross_entropy(logits, labels)
  np.testing.assert_allclose(loss, (5 + 1) * np.log(2) / 2, rtol=1e-6)


def test_doubled_weights_double_the_loss():
  logits, labels = _example(1)
  once = losses.weighted_cross_entropy(logits, labels)
  twice = losses.weighted_cross_entropy(
    logits, labels._replace(weights=2 * labels.weights)
  )
  np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


@pytest.mark.parametrize("label", [0, IGNORE])
def test_ignored_frame_costs_nothing(label):
  logits, _ = _example(2)
  labels = Labels(
    np.full((H, W), label, np.uint8), np.zeros((H, W), np.float32)
  )
  loss, grad = jax.value_and_grad(losses.weighted_cross_entropy)(logits, labels)
  assert float(loss) == 0.0
  np.testing.assert_array_equal(grad, np.zeros_like(logits))


def test_class_under_zero_weight_is_not_looked_at():
  logits, labels = _example(3)
  zeros = np.where(labels.weights > 0, labels.classes, 0).astype(np.uint8)
  function = jax.value_and_grad(losses.weighted_cross_entropy)
  ours = function(logits, labels)
  other = function(logits, labels._replace(classes=zeros))
  jax.tree.map(np.testing.assert_array_equal, ours, other)
  ignored = np.asarray(ours[1])[labels.weights == 0]
  np.testing.assert_array_equal(ignored, np.zeros_like(ignored))


def test_extreme_logits_stay_finite():
  logits, labels = _example(4, scale=1e4)
  loss, grad = jax.value_and_grad(losses.weighted_cross_entropy)(logits, labels)
  expected_loss, expected_grad = _torch_loss(logits, labels)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
  np.testing.assert_allclose(grad, expected_grad, atol=1e-6)
