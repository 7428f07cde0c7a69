"""Both ends hold the same bits, and an update is as small as it can be."""

import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd.network import mask_code, messages, weights
from ojd.network.messages import FULL, STATIC, Schedule, WireError
from ojd.network.weights import Weights

LAST = "layer1/kernel"  # of two


def _bits(params):
  return {name: array.tobytes() for name, array in params.items()}


def _params(*sizes, seed=0):
  rng = np.random.default_rng(seed)
  return {
    f"layer{i}/kernel": rng.normal(size=size).astype(np.float32)
    for i, size in enumerate(sizes)
  }


def _held(*sizes, trainable=None, version=0):
  params = _params(*sizes)
  return Weights(params, weights.layout_of(params, trainable), version)


@st.composite
def cases(draw):
  """(held, what was trained from there, what was chosen, its places)."""
  rng = np.random.default_rng(draw(st.integers(0, 2**32)))
  shape = st.lists(st.integers(0, 12), max_size=3).map(tuple)
  shapes = draw(st.dictionaries(st.text(max_size=6), shape, max_size=5))
  scale = draw(st.sampled_from([1e-9, 1, 1e3, 1e6]))
  params = {
    name: np.asarray(scale * rng.normal(size=shape), np.float32)
    for name, shape in shapes.items()
  }
  trainable = [name for name in params if rng.random() < 0.5]
  layout = weights.layout_of(params, trainable)
  fraction = draw(st.sampled_from([0, 1]) | st.floats(0, 1))
  mask = rng.random(layout.num_coords) < fraction
  static = weights.static_indices(layout)
  chosen, where = draw(
    st.sampled_from([(FULL, slice(None)), (STATIC, static), (mask, mask)])
  )
  vector = weights.ravel(params, layout)
  vector[where] = scale * rng.normal(size=vector[where].shape)
  trained = weights.unravel(vector, layout)
  held = Weights(params, layout, draw(st.integers(0, 2**60)))
  return held, trained, chosen, where


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
  cases(),
  st.sampled_from(messages.DTYPES),
  st.sampled_from([None, *mask_code.CODES]),
)
def test_device_holds_what_the_server_goes_on_with(case, dtype, code):
  held, trained, chosen, where = case
  before = _bits(held.params)
  schedule = Schedule(8, 0.5, 10.0)
  update, server = weights.advance(
    *(held, trained, chosen), dtype=dtype, code=code, schedule=schedule
  )
  message = messages.decode(messages.encode(update))
  assert message == update
  device = weights.apply(held, message)
  assert _bits(device.params) == _bits(server.params)
  assert device.version == server.version == held.version + 1
  assert _bits(held.params) == before
  # What is sent is rounded, and nothing else.
  expected = weights.ravel(trained, held.layout)
  expected[where] = expected[where].astype(update.payload.dtype)
  assert _bits(weights.unravel(expected, held.layout)) == _bits(server.params)
  for name, array in device.params.items():
    assert array.shape == held.params[name].shape
    assert array.dtype == np.float32
    assert not np.shares_memory(array, held.params[name])


@pytest.mark.parametrize(
  ("value", "dtype"),
  [
    *((65504, "float16"), (65519, "float16"), (-65519, "float16")),
    *((65520, "float32"), (-1e9, "float32"), (1e-30, "float16")),
  ],
)
def test_what_float16_has_no_room_for_goes_as_float32(value, dtype):
  held = _held((4,))
  trained = {"layer0/kernel": np.array([1, value, -0.0, 1 / 3], np.float32)}
  update, server = weights.advance(held, trained, FULL, dtype="float16")
  assert update.payload.dtype == dtype
  got = weights.apply(held, update).params["layer0/kernel"]
  assert np.isfinite(got).all()
  assert _bits(server.params) == {"layer0/kernel": got.tobytes()}
  if dtype == "float32":
    np.testing.assert_array_equal(got, trained["layer0/kernel"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", messages.DTYPES)
def test_what_is_not_finite_is_not_sent(value, dtype):
  held = _held((4,))
  trained = {"layer0/kernel": held.params["layer0/kernel"].copy()}
  trained["layer0/kernel"][2] = value
  for chosen in (FULL, STATIC, np.array([False, False, True, False])):
    with pytest.raises(WireError, match="not finite"):
      weights.advance(held, trained, chosen, dtype=dtype)


def test_what_moved_unchosen_is_told():
  held = _held((4,), (2, 2), trainable=["layer0/kernel"])
  trained = {name: array + 1 for name, array in held.params.items()}
  with pytest.raises(ValueError, match="layer1/kernel has moved"):
    weights.advance(held, trained, STATIC)
  with pytest.raises(ValueError, match="layer0/kernel has moved"):
    weights.advance(held, trained, np.arange(8) == 1)
  weights.advance(held, trained, FULL)


def test_update_of_other_weights_is_refused_and_nothing_changes():
  held = _held((4,), (2, 2), version=3)
  before = _bits(held.params)
  trained = {name: array + 1 for name, array in held.params.items()}
  update, _ = weights.advance(held, trained, np.ones(8, bool))
  static = _held((4,), (2, 2), trainable=["layer0/kernel"], version=3)
  some = {"encoding": STATIC, "mask": b"", "values": bytes(12)}
  for there, change, words in (
    (held._replace(version=2), {}, "fits version 3"),
    (held._replace(version=4), {}, "version 4 is held"),
    (_held((4,), (4,), version=3), {}, "another layout"),
    (_held((4,), (2, 2), trainable=[], version=3), {}, "another layout"),
    (held, {"values": bytes(33)}, "33 bytes of float32"),
    (held, {"values": bytes(36)}, "36 bytes of float32 for 8"),
    (held, {"values": update.payload.values[:-4]}, "mask"),
    (held, {"encoding": STATIC}, "where none is due"),
    (held, {"encoding": FULL, "mask": b"", "values": b""}, "0 values for a"),
    (static, some, "3 values for a static mask of 4"),
    (held, {"values": b"\xff" * 32}, "not finite"),
  ):
    more = {"layout": static.layout.digest} if there is static else {}
    payload = update.payload._replace(**change)
    other = msgspec.structs.replace(update, payload=payload, **more)
    with pytest.raises(WireError, match=words):
      weights.apply(there, other)
  assert _bits(held.params) == before


def test_all_weights_fit_any_version():
  server, device = _held((4,), version=7), _held((4,), version=2)
  device.params["layer0/kernel"][:] = 0
  message = messages.decode(messages.encode(weights.whole(server)))
  got = weights.apply(device, message)
  assert _bits(got.params) == _bits(server.params) and got.version == 7


@pytest.mark.parametrize(
  ("chosen", "num_bytes"), [(STATIC, 413_860), (FULL, 1_935_492)]
)
def test_sizes_of_shadow_tutor(chosen, num_bytes):
  """483,873 weights, of which the last 103,465 are trained."""
  held = _held((380_408,), (103_465,), trainable=[LAST])
  update, _ = weights.advance(held, held.params, chosen)
  assert update.payload.mask == b""
  assert len(update.payload.values) == num_bytes
  assert len(messages.encode(update)) - num_bytes < 200


def test_bandwidth_of_adaptive_model_streaming():
  """A twentieth of 2,113,043 weights every 10 s is 245 Kbps there."""
  held = _held((2_113_043,))
  mask = np.zeros(2_113_043, bool)
  rng = np.random.default_rng(0)
  mask[rng.choice(mask.size, 105_652, replace=False)] = True
  for code, kbps in ((mask_code.GZIP, 245), (None, 231)):
    options = {"dtype": "float16", "code": code}
    update, _ = weights.advance(held, held.params, mask, **options)
    found = 8 * len(messages.encode(update)) / 10 / 1000
    assert found == pytest.approx(kbps, rel=0.02)


def _moved(held, where):
  vector = weights.ravel(held.params, held.layout)
  vector[where] += 1
  return weights.unravel(vector, held.layout)


@hypothesis.given(
  st.integers(0, 2**32), st.floats(0, 1), st.sampled_from(["all", "b"])
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_device_ends_with_what_was_trained(seed, share, place):
  held = _held((400,), (300,), trainable=[LAST])
  where = np.random.default_rng(seed).random(700) < share
  if place == "b":
    where[:400] = False
  trained = _moved(held, where)
  chosen = weights.changed(held, trained)
  update, server = weights.advance(held, trained, chosen)
  device = weights.apply(held, messages.decode(messages.encode(update)))
  for copy in (server, device):
    for name, array in trained.items():
      assert copy.params[name].tobytes() == array.tobytes()
  # No other choice would have been much smaller.
  size = lambda x: len(messages.encode(weights.advance(held, trained, x)[0]))
  others = [where, *[STATIC] * (not where[:400].any())]
  assert size(chosen) <= min(map(size, others)) + 32


def test_one_of_very_many_is_not_worth_a_mask():
  held = _held((1,), (1 << 17,), trainable=[LAST])
  most = np.arange((1 << 17) + 1) > 1
  assert weights.changed(held, _moved(held, most), "float16") == "static"
  assert weights.changed(held, _moved(held, most)).sum() == (1 << 17) - 1


def test_zeros_of_both_signs_differ():
  held = _held((400,), (300,), trainable=[LAST])
  held.params["layer0/kernel"][0] = 0.0
  other = {**held.params, "layer0/kernel": held.params["layer0/kernel"].copy()}
  other["layer0/kernel"][0] = -0.0
  assert weights.changed(held, other).sum() == 1


def test_bits_name_the_trainable_arrays():
  params = {str(i): np.zeros(1, np.float32) for i in range(9)}
  whole = weights.layout_of(params)
  some = weights.layout_of(params, ["0", "2", "8"])
  bits = weights.trainable_bits(some)
  assert bits == b"\xa0\x80"
  assert weights.with_trainable(params, whole, bits) == some
  for wrong in (b"\xa0", b"\xa0\x80\x00", b"\xa0\x40"):
    with pytest.raises(ValueError, match="arrays"):
      weights.with_trainable(params, whole, wrong)


def test_digest_tells_every_bit():
  held = _held((400,), (300,), trainable=[LAST])
  digest = weights.digest_of(held.params, held.layout)
  copy = {name: array.copy() for name, array in held.params.items()}
  assert weights.digest_of(copy, held.layout) == digest
  copy[LAST].view(np.uint32)[299] ^= 1
  assert weights.digest_of(copy, held.layout) != digest
