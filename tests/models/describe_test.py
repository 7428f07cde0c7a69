"""The layer table against the published numbers, and torch's counters."""

import pytest

from ojd.models import ddrnet, describe, hrnet, jitnet, mobilenet_seg, shadow
from tests import binaries
from tests.reference import ddrnet_torch, hrnet_torch, torch_layers


@pytest.mark.parametrize(
  ("num_classes", "width", "num_units", "params", "gflop"),
  [
    (23, 0.5, 1, 752_383, 15.157),
    (9, 0.5, 1, 747_137, 11.94),
    (81, 0.5, 1, 754_297, 18.58),
    (2, 0.5, 1, 744_682, 10.64),
    (23, 1.0, 1, 2_981_063, 47.9),
    (2, 1.0, 1, 2_971_090, 42.3),
    (17, 0.5, 1, 752_185, None),
    (4, 0.5, 1, 744_700, None),
    (23, 0.25, 1, 219_135, None),
    (23, 0.75, 1, 1_682_083, None),
    (23, 0.5, 2, 1_446_463, None),
    (81, 1.0, 2, 5_753_537, None),
  ],
)
def test_jitnet_at_720p(num_classes, width, num_units, params, gflop):
  model = jitnet.JITNet(num_classes, width, num_units, resize_logits=False)
  rows = describe.layer_table(model, 720, 1280)
  assert describe.num_params(rows) == params
  if gflop:
    digits = len(str(gflop).partition(".")[2])
    assert round(describe.gflop(rows), digits) == gflop


def test_rows_of_the_published_table():
  model = jitnet.JITNet(23, resize_logits=False)
  rows = {r.name: r for r in describe.layer_table(model, 720, 1280)}
  conv = rows["enc3/conv1/conv"]
  assert conv.shape_in == (45, 80, 64) and conv.shape_out == (23, 40, 128)
  assert round(conv.macs / 1e6, 1) == 67.8
  assert conv.num_params + rows["enc3/conv1/norm"].num_params == 73_984
  assert rows["enc2/preact"].num_params == 128
  assert "enc2/shortcut" not in rows  # the width stays: sub-sampled
  assert round(rows["logits"].macs / 1e6, 1) == 678.3


@pytest.mark.parametrize(
  ("model", "net", "num_params", "gmac", "published"),
  [
    (ddrnet.DDRNet23Slim, (32, 128, 64), 5_695_987, 36.281, 36.6),
    (ddrnet.DDRNet23, (64, 128, 128), 20_148_947, 143.061, 143.7),
    (hrnet.HRNetW18Small, None, 3_939_579, 76.857, 77.9),
  ],
)
def test_sizes_are_the_published_ones(model, net, num_params, gmac, published):
  """Over Cityscapes' classes and frames; what was published counts norms."""
  rows = describe.layer_table(model(19), 1024, 2048)
  net = ddrnet_torch.DDRNet(19, *net) if net else hrnet_torch.HRNet(19)
  assert describe.num_params(rows) == num_params
  assert sum(p.numel() for p in net.parameters()) == num_params
  assert round(describe.gflop(rows) / 2, 3) == gmac
  macs, others = torch_layers.count_operations(net, 1024, 2048)
  assert sum(row.macs for row in rows) == macs
  assert round((macs + others) / 1e9, 1) == published


def test_depthwise_and_dilated_layers_are_counted_as_what_they_are():
  """One frame of 64x96: 4x6 pixels at a stride of 16."""
  model = mobilenet_seg.MobileNetSeg(9)
  rows = {r.name: r for r in describe.layer_table(model, 64, 96)}
  assert sum(r.num_params for r in rows.values()) == 12_649_993
  wide = rows["backbone/block15/depthwise/conv"]
  assert wide.kernel == "3x3 * 2"
  assert wide.num_params == 9 * 960 and wide.macs == 9 * 960 * 24
  strided = rows["backbone/block2/depthwise/conv"]
  assert strided.kernel == "3x3 / 2" and strided.shape_out == (16, 24, 96)
  assert rows["pyramid/rate18/conv"].kernel == "3x3 * 18"
  assert rows["pyramid/pooling/norm"].num_params == 512


def test_shadow_student_is_the_published_one():
  model = shadow.ShadowStudent(9, resize_logits=False)
  rows = describe.layer_table(model, 720, 1280)
  assert describe.num_params(rows) == 483_873
  assert describe.num_partial(rows) == 103_465
  assert round(describe.gflop(rows) / 2, 3) == 6.208
  (logits,) = [row for row in rows if row.name == "logits"]
  assert round(logits.macs / 1e6) == 265
  as_run = describe.layer_table(model.clone(resize_logits=True), 720, 1280)
  assert round(describe.gflop(as_run) / 2, 3) == 6.009


def test_binary_prints_the_totals():
  size = ("--num_classes=23", "--height=720", "--width=1280")
  result = binaries.run("describe", *size)
  assert "752,383 parameters" in result.stdout
  assert "15.157 GFLOP" in result.stdout
  size = ("--num_classes=19", "--height=1024", "--width=2048")
  between = binaries.run(
    "describe", "--model=ddrnet23_slim", "--gamma=4", *size
  ).stdout
  # Published: 17.67, with a few uncompressed layers.
  assert "with one every 3 frames 17.286 a frame, 2.10 times fewer" in between
