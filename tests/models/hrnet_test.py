"""HRNet against a torch network that was written from the paper."""

import jax
import numpy as np
import torch

from ojd.models import describe, hrnet, parts
from tests.reference import hrnet_torch, torch_layers

# Odd on purpose: 75 pixels halve to 38, 19, 10, 5 and 3.
FRAME = np.random.default_rng(0).integers(0, 256, (75, 100, 3), np.uint8)


def test_logits_equal_torch(monkeypatch):
  """With one module a stage: as many again take as long again to compile."""
  monkeypatch.setattr(hrnet, "NUM_MODULES", (1, 1, 1))
  model = hrnet.HRNetW18Small(3, 0.11)
  widths, stem = (2, 4, 8, 16), 7
  params = torch_layers.stirred(model, FRAME[None])
  net = torch_layers.load(hrnet_torch.HRNet(3, widths, stem, (1, 1)), params)
  with torch.no_grad():
    expected = net(torch_layers.pixels(FRAME[None]))
  with jax.enable_x64(True):
    apply = jax.jit(lambda p, x: model.apply({"params": p}, x))
    ours = np.asarray(apply(params, FRAME[None].astype(np.float64)))
  assert ours.shape == (1, 75, 100, 3)
  assert torch_layers.error(ours, expected) < 1e-9


def test_sizes_are_the_published_ones():
  rows = describe.layer_table(hrnet.HRNetW18Small(19), 1024, 2048)
  net = hrnet_torch.HRNet(19)
  num_params = describe.num_params(rows)
  assert num_params == sum(p.numel() for p in net.parameters()) == 3_939_579
  macs, others = torch_layers.count_operations(net, 1024, 2048)
  assert sum(row.macs for row in rows) == macs
  assert round(describe.gflop(rows) / 2, 3) == 76.857
  assert round((macs + others) / 1e9, 1) == 77.9


def test_every_layer_is_of_a_part():
  rows = describe.layer_table(hrnet.HRNetW18Small(19), 64, 64)
  found = {row.name.split("/")[0]: parts.part_of(row.name) for row in rows}
  assert found == {
    "backbone": "front",
    "stage4": "neck",
    "head": "decoder",
    "logits": "head",
  }
