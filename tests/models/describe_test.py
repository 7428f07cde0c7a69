"""Layers and parts against the published numbers, and torch's counters."""

import jax
import numpy as np
import pytest

from ojd.models import (
  ddrnet,
  describe,
  hrnet,
  jitnet,
  mobilenet_seg,
  parts,
  pretrained,
  shadow,
  student,
)
from tests import binaries
from tests.reference import ddrnet_torch, hrnet_torch, torch_layers


@pytest.mark.parametrize(
  ("num_classes", "width", "num_units", "params", "gflop"),
  [
    (23, 0.5, 1, 752_383, 15.157),
    (9, 0.5, 1, 747_137, 11.94),
    (2, 1.0, 1, 2_971_090, 42.3),
    (23, 0.25, 1, 219_135, None),
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
  delta = "--system=delta:gamma=4:refresh_every=3"
  size = ("--num_classes=19", "--height=1024", "--width=2048")
  flags = "--model=ddrnet23_slim", delta, *size
  between = binaries.run("describe", *flags).stdout
  assert "5,695,987 parameters" in between
  # Published: 17.67, with a few uncompressed layers.
  assert "with one every 3 frames 17.286 a frame, 2.10 times fewer" in between


def _sizes(model):
  """Numbers of parameters by name."""
  frame = jax.ShapeDtypeStruct((64, 64, 3), np.uint8)
  shapes = jax.eval_shape(
    student.from_linen(model).init, jax.random.key(0), frame
  )
  return {n: x.size for n, x in pretrained.flatten(shapes).items()}


JITNET_PARTS = dict(
  front="conv1 conv2 enc1 enc2 enc3",
  neck="dec1",
  decoder="dec2 dec3 decoder_conv1 decoder_conv2",
  head="logits",
)
DDRNET_PARTS = dict(
  front="backbone", neck="pyramid", decoder="head head_norm", head="logits"
)
MOBILENET_PARTS = dict(
  front="backbone", neck="pyramid", decoder="head", head="logits"
)
HRNET_PARTS = dict(
  front="backbone", neck="stage4", decoder="head", head="logits"
)


@pytest.mark.parametrize(
  ("model", "layers"),
  [
    (jitnet.JITNet(23, num_units=1), JITNET_PARTS),
    (jitnet.JITNet(23, num_units=2), JITNET_PARTS),
    (ddrnet.DDRNet23Slim(19), DDRNET_PARTS),
    (hrnet.HRNetW18Small(19), HRNET_PARTS),
    (mobilenet_seg.MobileNetSeg(9), MOBILENET_PARTS),
  ],
)
def test_every_layer_belongs_to_one(model, layers):
  names = _sizes(model)
  assert layers.keys() == set(parts.PARTS)
  for part, expected in layers.items():
    found = {n.split("/")[0] for n in parts.of_parts(names, part)}
    assert {n.split("_unit")[0] for n in found} == set(expected.split())
  assert sum(len(parts.of_parts(names, p)) for p in parts.PARTS) == len(names)


def test_norms_are_the_layers_with_a_scale_and_strangers_of_no_part():
  assert parts.part_of("encore/kernel") is None
  sizes = _sizes(jitnet.JITNet(23))
  norms = parts.of_norms(sizes)
  assert {n.rpartition("/")[2] for n in norms} == {"scale", "bias"}
  assert "enc1/preact/scale" in norms and "conv1/norm/bias" in norms
  assert "enc1/conv2_1x3/bias" not in norms and "logits/bias" not in norms
  assert len(norms) == 2 * sum(n.endswith("/scale") for n in sizes)
  # Of ShadowTutor's so many arrays are sent, as published.
  sizes = _sizes(student.network("shadow", 9))
  assert len(parts.of_parts(sizes, "decoder", "head")) == 26
  assert len(sizes) == 68
