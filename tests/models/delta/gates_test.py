"""Gates: how often they open, their gradient, and what is deployed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd.models.delta import changes, gates, sites
from ojd.models.delta.convert import convert
from tests.reference import layered_student

STUDENT, FRAMES = layered_student.STUDENT, layered_student.FRAMES


@pytest.mark.parametrize("logit", [-1.0, 0.0, 2.0])
def test_difference_of_two_draws_opens_as_often_as_the_sigmoid_says(logit):
  found = gates.sample(jnp.full((40_000,), logit), jax.random.key(0))
  assert set(np.unique(found).tolist()) <= {0.0, 1.0}
  assert found.mean() == pytest.approx(1 / (1 + np.exp(-logit)), abs=0.01)


def test_single_draw_opens_as_often_as_its_distribution_says():
  """P(G >= -b) of the standard Gumbel distribution."""
  logits = jnp.full((40_000,), 0.6)
  found = gates.sample(logits, jax.random.key(0), is_logistic=False)
  expected = 1 - np.exp(-np.exp(0.6))
  assert found.mean() == pytest.approx(expected, abs=0.01)


def test_gradient_is_that_of_the_soft_sample():
  logits, key = jnp.linspace(-2, 2, 9), jax.random.key(3)

  def soft(logits):
    first, second = jax.random.split(key)
    noise = jax.random.gumbel(first, (9,)) - jax.random.gumbel(second, (9,))
    return jnp.sum(jax.nn.sigmoid((logits + noise) * 1.5))

  ours = jax.grad(lambda x: jnp.sum(gates.sample(x, key)))(logits)
  np.testing.assert_allclose(ours, jax.grad(soft)(logits), rtol=1e-5)


def test_open_and_closed_gates_are_their_branches():
  full, pair = changes.full(), changes.pair(gamma=4)
  net = convert(STUDENT, gates.gated(full, pair))
  params = jax.jit(net.init)(jax.random.key(0), FRAMES[0])

  def look(params, net):
    _, cache = net.apply_key(params, FRAMES[0])
    return net.apply_delta(params, cache, FRAMES[1])

  mixed = jax.jit(lambda params: look(params, net))
  for i, site in enumerate(net.sites):
    gate = sites.at(params["delta"], site.path)
    gate["gate"] = jnp.float32(1 - 2 * (i % 2))
  found = mixed(params)
  deployed = gates.deploy(params["delta"], net.sites)
  change_of = lambda site: gates.of_weights(sites.at(deployed, site.path))
  alone = convert(STUDENT, lambda site: changes.from_key(change_of(site)))
  params = {"model": params["model"], "delta": deployed}
  plain = jax.jit(lambda params: look(params, alone))(params)
  np.testing.assert_allclose(found.logits, plain.logits, atol=1e-4)
  np.testing.assert_allclose(found.gmac, plain.gmac, rtol=1e-6)
  shares = [site.macs for site in net.sites]
  np.testing.assert_allclose(
    gates.cost(found.told, net.sites),
    sum(shares[::2]) / sum(shares),
    rtol=1e-6,
  )
