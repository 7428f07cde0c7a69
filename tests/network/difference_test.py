"""What travels is what differs, and no more bytes than it takes."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd.network import difference, payload, weights, wire
from ojd.network import layout as layout_lib
from ojd.network.weights import Weights


def _held(num=(400, 300)):
  rng = np.random.default_rng(0)
  params = {
    name: rng.normal(size=n).astype(np.float32)
    for name, n in zip("ab", num, strict=True)
  }
  return Weights(params, layout_lib.layout_of(params, ["b"]), 5)


def _moved(held, where):
  vector = layout_lib.ravel(held.params, held.layout)
  vector[where] += 1
  return layout_lib.unravel(vector, held.layout)


@hypothesis.given(
  st.integers(0, 2**32), st.floats(0, 1), st.sampled_from(["all", "b"])
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_device_ends_with_what_was_trained(seed, share, place):
  held = _held()
  where = np.random.default_rng(seed).random(700) < share
  if place == "b":
    where[:400] = False
  trained = _moved(held, where)
  chosen = difference.choose(held, trained)
  update, server = weights.advance(held, trained, chosen)
  device = weights.apply(held, wire.decode(wire.encode(update)))
  for copy in (server, device):
    for name, array in trained.items():
      assert copy.params[name].tobytes() == array.tobytes()
  # No other choice would have been much smaller.
  size = lambda x: len(wire.encode(weights.advance(held, trained, x)[0]))
  others = [where, *[payload.STATIC] * (not where[:400].any())]
  assert size(chosen) <= min(map(size, others)) + 32


def test_one_of_very_many_is_not_worth_a_mask():
  held = _held((1, 1 << 17))
  most = np.arange((1 << 17) + 1) > 1
  assert difference.choose(held, _moved(held, most), "float16") == "static"
  assert difference.choose(held, _moved(held, most)).sum() == (1 << 17) - 1


def test_zeros_of_both_signs_differ():
  held = _held()
  held.params["a"][0] = 0.0
  other = {**held.params, "a": held.params["a"].copy()}
  other["a"][0] = -0.0
  assert difference.choose(held, other).sum() == 1


def test_bits_name_the_trainable_arrays():
  params = {str(i): np.zeros(1, np.float32) for i in range(9)}
  whole = layout_lib.layout_of(params)
  some = layout_lib.layout_of(params, ["0", "2", "8"])
  bits = layout_lib.trainable_bits(some)
  assert bits == b"\xa0\x80"
  assert layout_lib.with_trainable(params, whole, bits) == some
  for wrong in (b"\xa0", b"\xa0\x80\x00", b"\xa0\x40"):
    with pytest.raises(ValueError, match="arrays"):
      layout_lib.with_trainable(params, whole, wrong)


def test_digest_tells_every_bit():
  held = _held()
  digest = layout_lib.digest_of(held.params, held.layout)
  copy = {name: array.copy() for name, array in held.params.items()}
  assert layout_lib.digest_of(copy, held.layout) == digest
  copy["b"].view(np.uint32)[299] ^= 1
  assert layout_lib.digest_of(copy, held.layout) != digest
