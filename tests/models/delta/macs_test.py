"""Work of key frames and of frames between, beside the layer table."""

import jax
import numpy as np
import pytest

from ojd.errors import UserError
from ojd.models import describe, jitnet
from ojd.models.delta import changes, gates, macs, sites
from ojd.models.delta.convert import convert
from ojd.models.student import from_linen
from tests.reference import layered_student


def test_jitnet_of_the_paper_by_hand():
  """720x1280, 23 classes: a quarter of each layer's channels between."""
  model = jitnet.JITNet(23, resize_logits=False)
  student = from_linen(model)
  rows = macs.table(student, changes.pair(gamma=4), 720, 1280)
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
  cost = macs.cost(rows, 4)
  assert 2 * cost.key == pytest.approx(15.157, abs=5e-4)
  assert cost.amortised == pytest.approx((cost.key + 3 * cost.delta) / 4)
  assert macs.cost(rows, 1).amortised == cost.key
  uncompressed = macs.cost(macs.table(student, changes.full(), 720, 1280), 3)
  assert uncompressed.key == uncompressed.delta
  assert uncompressed.amortised == pytest.approx(uncompressed.key)


def test_converted_student_tells_the_work_of_the_table():
  student, frames = layered_student.STUDENT, layered_student.FRAMES
  change = changes.pair(gamma=2)
  net = convert(student, changes.from_key(change))
  rows = macs.table(student, change, *frames[0].shape[:2])

  @jax.jit
  def work():
    params = net.init(jax.random.key(0), frames[0])
    _, cache = net.apply_key(params, frames[0])
    return net.apply_delta(params, cache, frames[1]).gmac

  cost = macs.cost(rows, 1)
  np.testing.assert_allclose(work(), cost.delta, rtol=1e-6)
  assert net.gmac(frames[0]) == pytest.approx(cost.key)


def test_deployed_gates_cost_the_branch_that_is_left():
  student, frames = layered_student.STUDENT, layered_student.FRAMES
  full, pair = changes.full(), changes.pair(gamma=4)
  net = convert(student, gates.gated(full, pair))
  init = jax.jit(net.init)
  delta = init(jax.random.key(0), frames[0])["delta"]
  delta["dec1"]["conv"]["gate"] = 0.5
  assert gates.names_open(delta, net.sites) == ["dec1/conv"]
  deployed = gates.deploy(delta, net.sites)
  size = frames[0].shape[:2]
  change_of = lambda site: gates.of_weights(sites.at(deployed, site.path))
  rows = macs.table(student, change_of, *size)
  by_full, by_pair = (macs.table(student, c, *size) for c in (full, pair))
  assert [row.delta for row in rows] == [
    (a if a.name == "dec1/conv" else b).delta
    for a, b in zip(by_full, by_pair, strict=True)
  ]


def test_interval_of_none_is_refused():
  with pytest.raises(UserError, match="interval=0: at least 1"):
    macs.cost([], 0)
