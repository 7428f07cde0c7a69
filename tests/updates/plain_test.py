"""Gradient steps against torch on a quadratic."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ojd import updates

MATRIX = np.float32([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
START = np.float32([1.0, -2.0, 0.5])
NUM_STEPS = 5

TORCH = {
  "sgd": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
  "nesterov": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
  "adam": lambda p, lr: torch.optim.Adam(p, lr),
}


def _ours(name, learning_rate):
  """Parameters after each step, [NUM_STEPS, 3]."""
  tx = updates.VARIANTS[name].factory(learning_rate)
  loss = lambda x: 0.5 * x @ MATRIX @ x
  params = jnp.asarray(START)
  opt_state, path = tx.init(params), []
  for _ in range(NUM_STEPS):
    steps, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    params = optax.apply_updates(params, steps)
    path.append(params)
  return jnp.stack(path)


def _theirs(name, learning_rate):
  params = torch.tensor(START, requires_grad=True)
  optimiser, path = TORCH[name]([params], learning_rate), []
  for _ in range(NUM_STEPS):
    optimiser.zero_grad()
    (0.5 * params @ torch.from_numpy(MATRIX) @ params).backward()
    optimiser.step()
    path.append(params.detach().numpy().copy())
  return np.stack(path)


def test_every_variant_has_an_opponent():
  assert TORCH.keys() <= updates.VARIANTS.keys()


@pytest.mark.parametrize("learning_rate", [0.01, 0.1])
@pytest.mark.parametrize("name", TORCH)
def test_steps_equal_torch(name, learning_rate):
  expected = _theirs(name, learning_rate)
  np.testing.assert_allclose(_ours(name, learning_rate), expected, rtol=2e-5)


@pytest.mark.parametrize("name", TORCH)
def test_learning_rates_in_one_call(name):
  rates = jnp.array([0.001, 0.01, 0.1])
  together = jax.jit(jax.vmap(lambda rate: _ours(name, rate)))(rates)
  for ours, rate in zip(together, rates, strict=True):
    np.testing.assert_allclose(ours, _theirs(name, float(rate)), rtol=2e-5)


@pytest.mark.parametrize("name", TORCH)
def test_default_learning_rate_goes_down(name):
  variant = updates.VARIANTS[name]
  path = np.vstack([START, _ours(name, variant.learning_rate)])
  values = np.einsum("ti,ij,tj->t", path, MATRIX, path)
  assert (np.diff(values) < 0).all()


def test_paper_constants():
  assert updates.MOMENTUM == 0.9
  assert updates.VARIANTS["sgd"].learning_rate == 0.01


def test_first_nesterov_step_is_longer_in_the_same_direction():
  first = lambda name: _ours(name, 0.01)[0] - START
  np.testing.assert_allclose(first("nesterov"), 1.9 * first("sgd"), rtol=1e-4)
