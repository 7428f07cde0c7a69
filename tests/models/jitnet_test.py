"""JITNet against the published counts and an independent torch network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ojd.models import jitnet
from tests.reference import jitnet_torch

SIZES = [(96, 160), (97, 131)]


def _num_parameters(model):
  frame = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), frame)
  return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))


@pytest.mark.parametrize(
  ("num_classes", "width", "num_units", "expected"),
  [
    (23, 0.5, 1, 752_383),
    (17, 0.5, 1, 752_185),
    (9, 0.5, 1, 747_137),
    (81, 0.5, 1, 754_297),
    (2, 0.5, 1, 744_682),
    (4, 0.5, 1, 744_700),
    (23, 0.25, 1, 219_135),
    (23, 0.75, 1, 1_682_083),
    (23, 1.0, 1, 2_981_063),
    (23, 0.5, 2, 1_446_463),
    (81, 1.0, 2, 5_753_537),
  ],
)
def test_number_of_parameters(num_classes, width, num_units, expected):
  model = jitnet.JITNet(num_classes, width, num_units)
  assert _num_parameters(model) == expected


def _relative_error(a, b):
  return np.linalg.norm(a - b) / np.linalg.norm(b)


def _student(height, width):
  model = jitnet.JITNet(num_classes=5)
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (1, height, width, 3)).astype(np.uint8)
  params = jax.jit(model.init)(jax.random.key(3), frames)["params"]
  # Norms and biases away from ones and zeros, so that each of them matters.
  params = jax.tree.map(
    lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params
  )
  return model, params, frames


@pytest.mark.parametrize("size", SIZES)
def test_logits_and_gradients_equal_torch(size):
  model, params, frames = _student(*size)
  rng = np.random.default_rng(1)
  weights = rng.standard_normal((1, *size, 5), np.float32)

  def weighed(params):
    logits = model.apply({"params": params}, frames)
    return jnp.sum(logits * weights) / weights.size, logits

  (_, logits), grads = jax.jit(jax.value_and_grad(weighed, has_aux=True))(
    params
  )
  theirs = jitnet_torch.to_torch(params, requires_grad=True)
  expected = jitnet_torch.logits(theirs, frames)
  (expected * torch.tensor(weights)).mean().backward()

  assert _relative_error(logits, expected.detach().numpy()) < 1e-4
  expected_grads = jitnet_torch.gradients(theirs)
  # A norm undoes what is constant over its channel, so the biases before one
  # have no gradient but rounding: measured against the largest, not their own.
  largest = max(np.linalg.norm(g) for g in jax.tree.leaves(expected_grads))
  errors = jax.tree.map(
    lambda a, b: float(
      np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3 * largest)
    ),
    grads,
    expected_grads,
  )
  assert max(jax.tree.leaves(errors)) < 1e-4, errors


def test_resizing_the_logits_changes_nothing():
  model, params, frames = _student(64, 72)
  late = model.apply({"params": params}, frames)
  published = model.clone(resize_logits=False).apply({"params": params}, frames)
  np.testing.assert_allclose(late, published, atol=2e-5 * np.abs(late).max())


def test_jit_equals_no_jit_and_compiles_once():
  model, params, frames = _student(33, 47)
  traces = []

  @jax.jit
  def apply(params, frames):
    traces.append(None)
    return model.apply({"params": params}, frames)

  first = apply(params, frames)
  apply(jax.tree.map(lambda p: 2 * p, params), frames)
  assert len(traces) == 1
  plain = model.apply({"params": params}, frames)
  np.testing.assert_allclose(first, plain, atol=1e-5 * np.abs(plain).max())


def test_frames_of_a_batch_do_not_touch_each_other():
  model, params, frames = _student(64, 72)
  other = 255 - frames
  both = model.apply({"params": params}, np.concatenate([frames, other]))
  alone = model.apply({"params": params}, other)
  assert _relative_error(both[1:], alone) < 1e-4
  assert _relative_error(both[:1], alone) > 0.1
