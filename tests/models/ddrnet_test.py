"""DDRNet against a torch network that was written from the paper."""

import jax
import numpy as np
import pytest
import torch

from ojd.models import ddrnet, describe, parts
from tests.reference import ddrnet_torch, torch_layers

# Odd on purpose: 130 pixels halve to 65, 33, 17, 9, 5 and 3.
FRAME = np.random.default_rng(0).integers(0, 256, (130, 200, 3), np.uint8)
NARROW = 0.125  # 4 planes, looks of 16 channels, a head of 8


def test_logits_equal_torch():
  model = ddrnet.DDRNet23Slim(3, NARROW)
  params = torch_layers.stirred(model, FRAME[None])
  net = ddrnet_torch.DDRNet(3, 4, 16, 8, (3, 4))
  with torch.no_grad():
    expected = torch_layers.load(net, params)(torch_layers.pixels(FRAME[None]))
  with jax.enable_x64(True):
    apply = jax.jit(lambda p, x: model.apply({"params": p}, x))
    ours = np.asarray(apply(params, FRAME[None].astype(np.float64)))
  assert ours.shape == (1, 130, 200, 3)
  assert torch_layers.error(ours, expected) < 1e-9


@pytest.mark.parametrize("size", [(1, 2), (2, 5), (9, 4)])
def test_pyramid_equals_torch_where_windows_are_left_with_a_pixel(size):
  model = ddrnet.Pyramid(5, 6)
  x = np.random.default_rng(3).standard_normal((1, *size, 7))
  params = torch_layers.stirred(model, x.astype(np.float32))
  net = torch_layers.load(ddrnet_torch.Pyramid(7, 5, 6, size), params)
  with torch.no_grad():
    expected = net(torch.tensor(x).permute(0, 3, 1, 2))
  with jax.enable_x64(True):
    ours = np.asarray(model.apply({"params": params}, x))
  assert torch_layers.error(ours, expected) < 1e-9


@pytest.mark.parametrize(
  ("model", "widths", "num_params", "gmac", "published"),
  [
    (ddrnet.DDRNet23Slim, (32, 128, 64), 5_695_987, 36.281, 36.6),
    (ddrnet.DDRNet23, (64, 128, 128), 20_148_947, 143.061, 143.7),
  ],
)
def test_sizes_are_the_published_ones(
  model, widths, num_params, gmac, published
):
  rows = describe.layer_table(model(19), 1024, 2048)
  assert describe.num_params(rows) == num_params
  net = ddrnet_torch.DDRNet(19, *widths)
  assert sum(p.numel() for p in net.parameters()) == num_params
  assert round(describe.gflop(rows) / 2, 3) == gmac
  macs, others = torch_layers.count_operations(net, 1024, 2048)
  assert sum(row.macs for row in rows) == macs
  assert round((macs + others) / 1e9, 1) == published


def test_every_layer_is_of_a_part():
  rows = describe.layer_table(ddrnet.DDRNet23Slim(19), 64, 64)
  found = {row.name.split("/")[0]: parts.part_of(row.name) for row in rows}
  assert found == {
    "backbone": "front",
    "pyramid": "neck",
    "head": "decoder",
    "head_norm": "decoder",
    "logits": "head",
  }
