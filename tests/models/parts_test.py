"""Which part of a student a parameter belongs to."""

import jax
import numpy as np
import pytest

from ojd.models import ddrnet, hrnet, jitnet, parts, pretrained, shadow
from ojd.models.student import from_linen

NUM_PARAMS = 752_383  # of the paper's network


def _sizes(model):
  """Numbers of parameters by name."""
  frame = jax.ShapeDtypeStruct((64, 64, 3), np.uint8)
  shapes = jax.eval_shape(from_linen(model).init, jax.random.key(0), frame)
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
  ],
)
def test_every_layer_belongs_to_one(model, layers):
  names = _sizes(model)
  assert layers.keys() == set(parts.PARTS)
  for part, expected in layers.items():
    found = {n.split("/")[0] for n in parts.of_parts(names, part)}
    assert {n.split("_unit")[0] for n in found} == set(expected.split())
  assert sum(len(parts.of_parts(names, p)) for p in parts.PARTS) == len(names)


def test_sizes_of_parts():
  sizes = _sizes(jitnet.JITNet(23))
  count = lambda *wanted: sum(sizes[n] for n in parts.of_parts(sizes, *wanted))
  assert sum(sizes.values()) == count(*parts.PARTS) == NUM_PARAMS
  assert count("head") == 32 * 23 + 23
  dec2 = 384 + 12_352 + 110_720 + 2 * 12_352
  dec3 = 256 + 4_128 + 36_928 + 2 * 3_104
  assert count("decoder") == dec2 + dec3 + 2 * 9_280
  assert count("neck") == 256 + 147_712 + 2 * 49_280
  # Of ShadowTutor's so many arrays are sent, as published.
  shadows = _sizes(shadow.ShadowStudent(9))
  assert len(parts.of_parts(shadows, "decoder", "head")) == 26
  assert len(shadows) == 68


def test_norms_are_the_layers_with_a_scale():
  sizes = _sizes(jitnet.JITNet(23))
  norms = parts.of_norms(sizes)
  assert {n.rpartition("/")[2] for n in norms} == {"scale", "bias"}
  assert "enc1/preact/scale" in norms and "conv1/norm/bias" in norms
  assert "enc1/conv2_1x3/bias" not in norms and "logits/bias" not in norms
  assert len(norms) == 2 * sum(n.endswith("/scale") for n in sizes)


def test_backbone_and_strangers():
  assert parts.part_of("backbone/block3/expand/conv/kernel") == "front"
  assert parts.part_of("pyramid/rate6/conv/kernel") == "neck"
  assert parts.part_of("head/conv/kernel") == "decoder"
  assert parts.part_of("encore/kernel") is None
