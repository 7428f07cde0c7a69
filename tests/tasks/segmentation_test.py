"""What labels are to a student that segments: the loss, beside torch; answers.

Agreement is judged by small numpy loops.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ojd.losses import weighted_cross_entropy
from ojd.tasks import segmentation
from ojd.tasks.segmentation import as_answer, classify
from ojd.types import IGNORE, Labels
from tests.reference.metrics_numpy import frame_miou

C, SIZE = 4, (6, 7)
VALUE_AND_GRAD = jax.value_and_grad(weighted_cross_entropy)


def _labels(seed, num_classes=C):
  """Labels some pixels of which are ignored, and some have no weight."""
  rng = np.random.default_rng(seed)
  classes = rng.integers(0, num_classes, SIZE).astype(np.uint8)
  weights = rng.choice([0.0, 1.0, 5.0], SIZE).astype(np.float32)
  classes[0], weights[0] = IGNORE, 0
  return Labels(classes, weights)


def _logits(seed, scale=3.0):
  rng = np.random.default_rng(seed)
  return (scale * rng.standard_normal((*SIZE, C))).astype(np.float32)


def _torch_loss(logits, labels):
  """Loss and gradient by torch, in double precision."""
  logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
  classes = np.where(labels.weights > 0, labels.classes, 0).astype(np.int64)
  entropy = torch.nn.functional.cross_entropy(
    *(logits.reshape(-1, C), torch.from_numpy(classes).reshape(-1)),
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
  example = _logits(seed, scale), _labels(seed)
  function = jax.jit(VALUE_AND_GRAD) if jit else VALUE_AND_GRAD
  loss, grad = function(*example)
  expected_loss, expected_grad = _torch_loss(*example)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
  np.testing.assert_allclose(grad, expected_grad, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("num_present", [1, 2, C])
def test_agreement_is_the_mean_iou_of_the_pixels_that_count(num_present, jit):
  task = segmentation(C)
  wrap = jax.jit if jit else lambda function: function
  before, after = _labels(0, num_present), _labels(1, num_present)
  answer = _labels(2, num_present).classes
  answer[0] = 3  # what is ignored is not asked about
  found = wrap(task.accuracy)(before, answer)
  expected = frame_miou(before.classes, answer, C, before.weights > 0)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  found = wrap(task.similarity)(before, after)
  counts = (before.weights > 0) & (after.weights > 0)
  expected = frame_miou(before.classes, after.classes, C, counts)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("num_classes", [1, 2, 23])
def test_an_answer_is_the_first_of_the_highest_logits(num_classes):
  rng = np.random.default_rng(5)
  logits = rng.integers(-2, 3, (2, *SIZE, num_classes)).astype(np.float32)
  found = jax.jit(classify)(logits)
  assert found.dtype == jnp.uint8
  np.testing.assert_array_equal(found, logits.argmax(-1))
  np.testing.assert_array_equal(classify(np.full_like(logits, np.nan)), 0)


def test_labels_as_an_answer_and_without_anything_to_learn():
  task, labels = segmentation(C), _labels(6)
  expected = np.where(labels.classes == IGNORE, 0, labels.classes)
  np.testing.assert_array_equal(as_answer(labels), expected)
  assert float(task.accuracy(labels, task.as_answer(labels))) == 1
  nothing = task.without_weight(labels)
  for answer in (labels.classes, 0 * labels.classes):
    assert float(task.accuracy(nothing, answer)) == 1
  loss, grad = jax.value_and_grad(task.loss)(_logits(6), nothing)
  assert loss == 0 and not np.any(grad)
  blank = task.blank(np.zeros((*SIZE, 3), np.uint8))
  assert blank.shape == SIZE and blank.dtype == jnp.uint8 and not blank.any()
