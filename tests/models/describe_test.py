"""The layer table against the published numbers."""

import pytest

from ojd.models import describe, jitnet, mobilenet_seg, shadow
from tests import binaries


@pytest.mark.parametrize(
  ("num_classes", "width", "params", "gflop"),
  [
    (23, 0.5, 752_383, 15.157),
    (9, 0.5, 747_137, 11.94),
    (81, 0.5, 754_297, 18.58),
    (2, 0.5, 744_682, 10.64),
    (23, 1.0, 2_981_063, 47.9),
    (2, 1.0, 2_971_090, 42.3),
  ],
)
def test_totals_at_720p(num_classes, width, params, gflop):
  model = jitnet.JITNet(num_classes, width, resize_logits=False)
  rows = describe.layer_table(model, 720, 1280)
  assert describe.num_params(rows) == params
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


def test_shadow_student_is_the_published_one():
  model = shadow.ShadowStudent(9, resize_logits=False)
  rows = describe.layer_table(model, 720, 1280)
  assert describe.num_params(rows) == 483_873
  assert describe.num_partial(rows) == 103_465
  assert round(describe.gflop(rows) / 2, 3) == 6.208
  by_name = {row.name: row for row in rows}
  assert round(by_name["logits"].macs / 1e6) == 265
  as_run = describe.layer_table(model.clone(resize_logits=True), 720, 1280)
  assert round(describe.gflop(as_run) / 2, 3) == 6.009
