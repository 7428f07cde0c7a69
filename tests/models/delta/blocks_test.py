"""Converted blocks, with the block itself and with smaller students."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ojd import losses
from ojd.errors import UserError
from ojd.models import jitnet, layers
from ojd.models.delta import blocks, conversion
from ojd.models.student import from_linen
from tests.reference import layered_student

FRAMES = layered_student.FRAMES


class _Net(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x):
    x = x / 128 - 1
    x = jitnet.Unit(8, 2, name="enc1")(x)
    x = jitnet.Unit(8, name="enc2")(x)
    logits = layers.Conv(self.num_classes, (1, 1), name="logits")
    return logits(x).astype(jnp.float32)


STUDENT = from_linen(_Net(3))


class _Small(nn.Module):
  features: int
  stride: int

  @nn.compact
  def __call__(self, x):
    return layers.Conv(self.features, (1, 1), self.stride, name="conv")(x)


def _small(layer):
  return _Small(layer.block.features, layer.block.stride)


def test_block_itself_gives_the_networks_own_answers():
  net = blocks.convert_blocks(STUDENT, lambda layer: layer.block)
  assert [layer.name for layer in net.converted] == ["enc1", "enc2"]
  assert net.converted[0].shape_in == (64, 64, 3)
  assert net.converted[0].shape_out == net.converted[1].shape_in == (32, 32, 8)
  model = jax.jit(STUDENT.init)(jax.random.key(0), FRAMES[0])
  delta = {name: model[name] for name in ("enc1", "enc2")}
  params = {"model": model, "delta": delta}
  _, cache = jax.jit(net.apply_key)(params, FRAMES[0])
  step = jax.jit(net.apply_delta)
  plain = jax.jit(STUDENT.apply)
  for frame in FRAMES[1:]:
    between = step(params, cache, frame)
    np.testing.assert_allclose(between.logits, plain(model, frame), atol=1e-3)
  assert step._cache_size() == 1


def test_frames_between_go_through_h_and_work_is_what_ran():
  net = blocks.convert_blocks(STUDENT, _small)
  params = jax.jit(net.init)(jax.random.key(0), FRAMES[0])
  assert params["delta"]["enc1"]["conv"]["kernel"].shape == (1, 1, 3, 8)
  key_logits, cache = jax.jit(net.apply_key)(params, FRAMES[0])
  step = jax.jit(net.apply_delta)
  still = step(params, cache, FRAMES[0])
  np.testing.assert_allclose(still.logits, key_logits, atol=1e-4)
  # Both are 1x1 and linear, so that the whole change is one product.
  change = (FRAMES[1] / 128.0 - FRAMES[0] / 128.0)[::2, ::2]
  for name in ("enc1", "enc2"):
    change = change @ np.asarray(params["delta"][name]["conv"]["kernel"][0, 0])
  change = change @ np.asarray(params["model"]["logits"]["kernel"][0, 0])
  between = step(params, cache, FRAMES[1])
  found = between.logits - key_logits
  np.testing.assert_allclose(found, change, atol=1e-3)
  height, width = (side // 2 for side in FRAMES[0].shape[:2])
  small, last = 3 * 8 + 8 * 8, 8 * 3
  macs = height * width * (small + last)
  assert float(between.gmac) == pytest.approx(macs / 1e9)
  own = sum(s.macs for s in conversion.trace(STUDENT, *FRAMES[0].shape[:2]))
  key = (own + height * width * small) / 1e9
  assert net.gmac(FRAMES[0]) == pytest.approx(key)
  with pytest.raises(UserError, match="of another network or size"):
    net.apply_delta(params, cache, FRAMES[0][:8])


def test_thin_h_is_silent_until_it_learns():
  net = blocks.convert_blocks(STUDENT, blocks.thinner(4))
  params = jax.jit(net.init)(jax.random.key(0), FRAMES[0])
  assert params["delta"]["enc2"]["narrow"]["kernel"].shape == (3, 3, 8, 2)
  key_logits, cache = jax.jit(net.apply_key)(params, FRAMES[0])
  labels = layered_student.labels_of(1)

  def loss_fn(delta):
    both = {**params, "delta": delta}
    logits = net.apply_delta(both, cache, FRAMES[1]).logits
    wide = jnp.repeat(jnp.repeat(logits, 2, 0), 2, 1)
    return losses.weighted_cross_entropy(wide, labels), logits

  step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
  (first, logits), grads = step(params["delta"])
  np.testing.assert_allclose(logits, key_logits, atol=1e-5)
  moved = optax.tree.add_scale(params["delta"], -0.05, grads)
  (second, _), _ = step(moved)
  assert second < first


def test_wrong_requests_are_refused():
  plain = layered_student.STUDENT
  with pytest.raises(UserError, match="no residual block"):
    blocks.convert_blocks(plain, _small)
  with pytest.raises(UserError, match="gamma=0: at least 1"):
    blocks.thinner(0)
