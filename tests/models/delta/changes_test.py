"""Students of a change: their channels, their work, and the best pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ojd.errors import UserError
from ojd.models import describe, jitnet
from ojd.models.delta import changes
from ojd.models.delta.conversion import ConvLayer
from ojd.models.student import from_linen
from tests.reference import kernels


def _draw(shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.standard_normal(shape).astype(np.float32)


def _conv(kernel_size=(3, 3), stride=1, dilation=1, num_in=8, num_out=16):
  height, width = 9, 12
  out = (-(-height // stride), -(-width // stride), num_out)
  return ConvLayer(
    *(("a",), kernel_size, stride, dilation, (height, width, num_in)),
    out,
  )


SITES = [
  *(_conv(), _conv(stride=2), _conv(dilation=2), _conv((1, 1), stride=2)),
  *(_conv((1, 3)), _conv((3, 1)), _conv((5, 3))),
]


@pytest.mark.parametrize("conv", SITES)
def test_pair_is_the_convolution_with_the_joined_kernel(conv):
  shape = (*conv.kernel_size, conv.shape_in[-1], conv.shape_out[-1])
  kernel, x = _draw(shape), _draw((2, *conv.shape_in), 1)
  first, second = changes.split_kernel(jnp.asarray(kernel), 5)
  weights = {"first": first, "second": second}
  found = changes.apply_pair(weights, x, conv)
  padding = [(k // 2 * conv.dilation,) * 2 for k in conv.kernel_size]
  expected = lax.conv_general_dilated(
    *(x, kernels.join(first, second), (conv.stride,) * 2, padding),
    rhs_dilation=(conv.dilation,) * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  assert found.shape[1:] == conv.shape_out
  np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
  ("shape", "rank"), [((3, 3, 8, 16), 4), ((1, 1, 12, 6), 3), ((1, 3, 4, 4), 4)]
)
def test_refined_pair_is_as_good_as_a_new_one(shape, rank):
  off = lambda kernel, pair: np.linalg.norm(kernel - kernels.join(*pair))
  refine = jax.jit(changes.refine_pair)
  kernel = _draw(shape)
  pair = changes.split_kernel(jnp.asarray(kernel), rank)
  for i in range(20):  # as it learns, step by step
    kernel = kernel + 0.02 * _draw(shape, i + 1)
    old, pair = pair, refine(kernel, *pair)
    assert off(kernel, pair) <= off(kernel, old) + 1e-5
  best = changes.split_kernel(jnp.asarray(kernel), rank)
  assert off(kernel, pair) <= 1.02 * off(kernel, best) + 1e-4
  # Of nothing nothing is made.
  nought = refine(jnp.zeros(shape), *(jnp.zeros_like(x) for x in pair))
  assert not np.any(kernels.join(*nought))


@pytest.mark.parametrize("rank", [1, 2, 3, 6])
def test_no_other_pair_is_nearer(rank):
  kernel = _draw((3, 3, 2, 2))  # of rank 6: there it is the kernel
  matrix = kernel.transpose(0, 2, 1, 3).reshape(6, 6).astype(float)
  ours = np.asarray(
    kernels.join(*changes.split_kernel(jnp.asarray(kernel), rank))
  )
  error = np.square(ours - kernel).sum()
  # By the theorem of Eckart and Young.
  best = np.square(np.linalg.svd(matrix)[1][rank:]).sum()
  assert error == pytest.approx(best, rel=1e-4, abs=1e-9)


def test_numbers_of_channels_are_the_published():
  rank = lambda num_in, num_out, gamma, policy, size=(3, 3): changes.rank_of(
    _conv(size, num_in=num_in, num_out=num_out), gamma, policy
  )
  assert rank(64, 32, 4, "out") == 8
  assert rank(64, 4, 4, "out") == 4  # not fewer than gamma's own
  assert rank(64, 6, 4, "out") == 1
  assert rank(64, 32, 16, "min") == 2
  assert rank(16, 32, 16, "min") == 1
  assert rank(8, 32, 16, "min") == 8
  # No more than a kernel can use.
  assert rank(4, 64, 4, "out", (1, 1)) == 4


def test_bottleneck_that_costs_more_is_left_out():
  narrow = _conv((1, 1), num_in=4, num_out=16)  # 64 -> 4 * (4 + 16) a pixel
  wide = _conv((3, 3), stride=2, num_in=16, num_out=16)  # 2304 -> 4 * 144
  pair = changes.pair(gamma=4)  # 5x6 out of 9x12: at 5x12 between
  assert wide.macs == changes.same().macs(wide) == 9 * 16 * 16 * 5 * 6
  assert pair.macs(wide) == 4 * (3 * 16 * 5 * 12 + 3 * 16 * 5 * 6)
  assert changes.saves(pair, narrow) == pytest.approx(1 - 80 / 64)
  assert changes.saves(pair, wide) == pytest.approx(1 - 4 * 144 / 2304)
  change_of = changes.where_it_saves(pair)
  assert change_of(narrow) is None and change_of(wide) is pair
  rule_of = changes.rules(change_of)
  assert rule_of(narrow) is None and rule_of(wide) is not None


def test_wrong_options_are_refused():
  layers = [_conv(num_in=8, num_out=16), _conv(num_in=4, num_out=4)]
  changes.check_gamma(16, "out", layers)
  changes.check_gamma(8, "min", layers)
  for call, words in (
    (lambda: changes.pair(gamma=0), "gamma=0: at least 1"),
    (lambda: changes.pair(policy="max"), "policy=max: "),
    (lambda: changes.check_gamma(9, "min", layers), "more than 8 channels"),
    (lambda: changes.mean_cost([], 0), "interval=0: at least 1"),
  ):
    with pytest.raises(UserError, match=words):
      call()


def test_jitnet_of_the_paper_by_hand():
  """720x1280, 23 classes: a quarter of each layer's channels between."""
  model = jitnet.JITNet(23, resize_logits=False)
  student = from_linen(model)
  rows = changes.work_table(student, changes.pair(gamma=4), 720, 1280)
  plain = [r for r in describe.layer_table(model, 720, 1280) if r.macs]
  assert [(r.name, r.key) for r in rows] == [(r.name, r.macs) for r in plain]
  found = {row.name: row.delta for row in rows}
  # The first and the last stay.
  assert found["conv1/conv"] == 360 * 640 * 9 * 3 * 8
  assert found["logits"] == 720 * 1280 * 32 * 23
  # 3x3, 8 -> 32 by 8, strided rows first: 180x640, then 180x320.
  assert found["conv2/conv"] == 8 * 180 * 3 * (8 * 640 + 32 * 320)
  # 1x3, 64 -> 64 by 16.
  assert found["enc1/conv2_1x3"] == 90 * 160 * 16 * (64 + 3 * 64)
  cost = changes.mean_cost(rows, 4)
  assert 2 * cost.key == pytest.approx(15.157, abs=5e-4)
  assert cost.amortised == pytest.approx((cost.key + 3 * cost.delta) / 4)
  assert changes.mean_cost(rows, 1).amortised == cost.key
