"""Blocks told by pairs, with the block itself and with smaller students."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ojd.errors import RequestError
from ojd.models import jitnet, layers, mobilenet_seg
from ojd.models.delta import block
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
    return layers.Conv(self.num_classes, (1, 1), name="logits")(x).astype(
      jnp.float32
    )


STUDENT = from_linen(_Net(3))


class _Small(nn.Module):
  features: int
  stride: int

  @nn.compact
  def __call__(self, x):
    return layers.Conv(self.features, (1, 1), self.stride, name="conv")(x)


def test_block_itself_gives_the_networks_own_answers():
  net = block.convert_blocks(STUDENT, jitnet.Unit, lambda unit: unit.clone())
  assert net.paths == (("enc1",), ("enc2",))
  model = jax.jit(STUDENT.init)(jax.random.key(0), FRAMES[0])
  delta = {name: model[name] for name in ("enc1", "enc2")}
  params = {"model": model, "delta": delta}
  _, cache = jax.jit(net.apply_key)(params, FRAMES[0])
  step = jax.jit(net.apply_delta)
  plain = jax.jit(STUDENT.apply)
  for frame in FRAMES[1:]:
    logits = step(params, cache, frame)
    np.testing.assert_allclose(logits, plain(model, frame), atol=1e-3)
  assert step._cache_size() == 1


def test_still_frame_changes_nothing_and_another_goes_through_h():
  make_h = lambda unit: _Small(unit.features, unit.stride)
  net = block.convert_blocks(STUDENT, jitnet.Unit, make_h)
  params = jax.jit(net.init)(jax.random.key(0), FRAMES[0])
  assert params["delta"]["enc1"]["conv"]["kernel"].shape == (1, 1, 3, 8)
  key_logits, cache = jax.jit(net.apply_key)(params, FRAMES[0])
  step = jax.jit(net.apply_delta)
  still = step(params, cache, FRAMES[0])
  np.testing.assert_allclose(still, key_logits, atol=1e-4)
  # Both are 1x1 and linear, so that the whole change is one product.
  change = (FRAMES[1] / 128.0 - FRAMES[0] / 128.0)[::2, ::2]
  for name in ("enc1", "enc2"):
    change = change @ np.asarray(params["delta"][name]["conv"]["kernel"][0, 0])
  change = change @ np.asarray(params["model"]["logits"]["kernel"][0, 0])
  found = step(params, cache, FRAMES[1]) - key_logits
  np.testing.assert_allclose(found, change, atol=1e-3)


def test_network_without_such_a_block_is_refused():
  kind = mobilenet_seg.InvertedResidual
  with pytest.raises(RequestError, match="no block InvertedResidual"):
    block.convert_blocks(STUDENT, kind, lambda unit: unit)
