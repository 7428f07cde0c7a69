"""Weighted cross-entropy and its gradient against torch and by hand."""

import jax
import numpy as np
import pytest
import torch

from ojd import losses
from ojd.types import IGNORE, Labels
from tests.reference.compare import equal

H, W, C = 6, 7, 4
LOSS = losses.weighted_cross_entropy
VALUE_AND_GRAD = jax.value_and_grad(LOSS)


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
@pytest.mark.parametrize(
  ("seed", "scale", "atol"), [(0, 3, 1e-7), (1, 3, 1e-7), (4, 1e4, 1e-6)]
)
def test_loss_and_gradient_equal_torch(seed, scale, atol, jit):
  """Logits that are extreme as well: all stays finite."""
  example = _example(seed, scale)
  function = jax.jit(VALUE_AND_GRAD) if jit else VALUE_AND_GRAD
  loss, grad = function(*example)
  expected_loss, expected_grad = _torch_loss(*example)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
  np.testing.assert_allclose(grad, expected_grad, rtol=1e-4, atol=atol)


def test_loss_by_hand():
  # Two even classes cost log 2 each; the third pixel does not count.
  logits = np.zeros((1, 3, 2), np.float32)
  labels = Labels(
    np.array([[0, 1, IGNORE]], np.uint8), np.float32([[5.0, 1.0, 0.0]])
  )
  expected = (5 + 1) * np.log(2) / 2
  np.testing.assert_allclose(LOSS(logits, labels), expected, rtol=1e-6)


def test_class_under_zero_weight_is_not_looked_at():
  logits, labels = _example(3)
  zeros = np.where(labels.weights > 0, labels.classes, 0).astype(np.uint8)
  ours = VALUE_AND_GRAD(logits, labels)
  equal(ours, VALUE_AND_GRAD(logits, labels._replace(classes=zeros)))
  assert not np.any(ours[1][labels.weights == 0])
  for classes in (zeros, labels.classes):  # no pixel counts: nothing to learn
    loss, grad = VALUE_AND_GRAD(logits, Labels(classes, 0 * labels.weights))
    assert loss == 0 and not np.any(grad)
