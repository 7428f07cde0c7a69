"""Masks in few bytes: every one comes back, and the bytes are few."""

import gzip
import time
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ojd.network import mask_code
from ojd.network.messages import GAPS, GZIP, WireError

STUDENT = 2_113_043  # coordinates that Adaptive Model Streaming trains


_quick = hypothesis.settings(max_examples=100, deadline=None)


def _random_mask(num, fraction):
  mask = np.arange(num) < round(fraction * num)
  return np.random.default_rng(0).permutation(mask)


def _entropy(num, fraction):
  p = np.array([fraction, 1 - fraction])
  return -num * (p * np.log2(p)).sum() / 8


@st.composite
def masks(draw):
  """(mask, sizes): of any density, even or in runs, and cut into arrays."""
  rng = np.random.default_rng(draw(st.integers(0, 2**32)))
  sizes = draw(st.lists(st.integers(0, 3000), max_size=6))
  num = sum(sizes)
  fraction = draw(st.sampled_from([0, 0.01, 1]) | st.floats(0, 1))
  stretch = draw(st.sampled_from([1, 1, 7, 64]))
  mask = np.repeat(rng.random(num // stretch + 1) < fraction, stretch)[:num]
  return mask, sizes


@_quick
@hypothesis.given(masks(), st.sampled_from([None, *mask_code.CODES]))
def test_any_mask_comes_back(drawn, wanted):
  mask, sizes = drawn
  code, data = mask_code.encode(mask, sizes, wanted)
  assert code == wanted or wanted is None
  got = mask_code.decode(data, sizes, np.count_nonzero(mask), code)
  np.testing.assert_array_equal(got, np.flatnonzero(mask))
  if wanted is None:
    assert len(data) <= len(mask_code.encode(mask, sizes, GAPS)[1])


# Gaps of every length.
_GAPS_UP = [*range(70), *(2**i - j for i in range(7, 23) for j in (1, 0))]


def test_gaps_of_every_length_come_back():
  places = np.cumsum(np.add(_GAPS_UP, 1)) - 1
  mask = np.zeros(places[-1] + 100, bool)
  mask[places] = True
  for chosen in (mask, ~mask):
    _, data = mask_code.encode(chosen, [mask.size], GAPS)
    got = mask_code.decode(data, [mask.size], chosen.sum(), GAPS)
    np.testing.assert_array_equal(got, np.flatnonzero(chosen))


def test_bitmap_counted_by_hand():
  mask = np.array([1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1], bool)
  _, data = mask_code.encode(mask, [9, 3], GZIP)
  packed = bytes([0b1000_0000, 0b1000_0000, 0b1010_0000])
  assert gzip.decompress(data) == packed


def test_pattern_that_repeats_is_zipped():
  mask = np.tile(_random_mask(500, 0.5), 80)
  expected = mask_code.encode(mask, [mask.size], GZIP)
  assert mask_code.encode(mask, [mask.size]) == expected


@pytest.mark.parametrize(
  ("fraction", "gzipped"),
  [
    *((0.001, None), (0.01, 29_000), (0.05, 95_000), (0.1, 146_000)),
    *((0.2, None), (0.35, None), (0.5, None)),
  ],
)
def test_sizes_for_a_random_mask(fraction, gzipped):
  mask, sizes = _random_mask(STUDENT, fraction), [STUDENT]
  start = time.process_time()
  code, data = mask_code.encode(mask, sizes)
  got = mask_code.decode(data, sizes, mask.sum(), code)
  # Some hundred milliseconds; the bound allows for a busy machine.
  assert time.process_time() - start < 2
  np.testing.assert_array_equal(got, np.flatnonzero(mask))
  bound = _entropy(STUDENT, fraction)
  assert bound < len(data) < (1.03 if fraction < 0.01 else 1.02) * bound
  if gzipped:  # as Adaptive Model Streaming has it
    assert code == GAPS
    _, theirs = mask_code.encode(mask, sizes, GZIP)
    assert len(theirs) == pytest.approx(gzipped, rel=0.02)
    assert len(data) < 0.9 * len(theirs)


def _clustered(kind):
  rng = np.random.default_rng(1)
  if kind == "blocks":
    chances = rng.choice([0.005, 0.5], STUDENT // 64 + 1, p=[0.91, 0.09])
    chances = np.repeat(chances, 64)
  else:
    lengths = rng.geometric(np.tile([0.01, 0.2], 30_000))
    chances = np.repeat(np.tile([0, 1], 30_000), lengths)
  return rng.random(STUDENT) < np.resize(chances, STUDENT)


@pytest.mark.parametrize("kind", ["blocks", "runs"])
def test_clusters_take_less_than_the_entropy_of_their_density(kind):
  mask = _clustered(kind)
  _, data = mask_code.encode(mask, [STUDENT], GAPS)
  _, theirs = mask_code.encode(mask, [STUDENT], GZIP)
  assert len(data) < 0.8 * _entropy(STUDENT, mask.mean())
  assert len(data) < len(theirs)
  got = mask_code.decode(data, [STUDENT], mask.sum(), GAPS)
  np.testing.assert_array_equal(got, np.flatnonzero(mask))


def _bitmap(*content):
  return GZIP, gzip.compress(bytes(content), mtime=0)


_GAPS = mask_code.encode(_random_mask(5000, 0.05), [5000], GAPS)[1]
_ZIP = mask_code.encode(_random_mask(5000, 0.05), [5000], GZIP)[1]
_BOMB = mask_code.encode(np.zeros(8 << 24, bool), [8 << 24], GZIP)[1]


@pytest.mark.parametrize(
  ("code", "data", "sizes", "num_chosen", "words"),
  [
    (*_bitmap(0x80), [9], 1, "unpack to 2 bytes"),
    (*_bitmap(0x80, 0x80, 0), [9], 2, "unpack to 2 bytes"),
    (*_bitmap(0x80, 0x40), [9], 1, "after an array's end"),
    (*_bitmap(0x80, 0x80), [9], 1, "2 coordinates, not 1"),
    (*_bitmap(0x80, 0x80), [9], 10, "10 among 9"),
    (GZIP, _ZIP, [5000], 251, "250 coordinates, not 251"),
    (GZIP, _ZIP[:-1], [5000], 250, "does not unpack to 625"),
    (GZIP, _ZIP + b"x", [5000], 250, "does not unpack to 625"),
    (GZIP, _ZIP + _ZIP, [5000], 250, "does not unpack to 625"),
    (GZIP, _BOMB, [5000], 250, "does not unpack to 625"),
    (GZIP, b"dear diary", [5000], 250, "cannot be unpacked"),
    (GZIP, b"", [5000], 250, "does not unpack to 625"),
    (GAPS, _GAPS, [5000], 249, "mask"),
    (GAPS, _GAPS, [5000], 251, "mask"),
    (GAPS, _GAPS, [4000], 250, "of 4000"),
    (GAPS, _GAPS + b"x", [5000], 250, "does not unpack"),
    (GAPS, _GAPS[:-1], [5000], 250, "does not unpack"),
    (GAPS, _GAPS[:60], [5000], 250, "does not unpack"),
    (GAPS, b"", [5000], 250, "does not unpack"),
    (GAPS, b"", [5000], 1, "cut off"),
    (GAPS, zlib.compress(b"\xff", wbits=-15), [5000], 0, "other than 0 gaps"),
    (GAPS, _BOMB, [5000], 250, "cannot be unpacked"),
  ],
)
def test_what_is_no_mask_is_refused(code, data, sizes, num_chosen, words):
  with pytest.raises(WireError, match=words) as error:
    mask_code.decode(data, sizes, num_chosen, code)
  assert "\n" not in str(error.value)


def test_damaged_gaps_are_refused_or_are_some_mask():
  rng = np.random.default_rng(0)
  for num in range(400):
    damaged = bytearray(_GAPS)
    damaged[num % len(damaged)] ^= int(rng.integers(1, 256))
    try:
      places = mask_code.decode(bytes(damaged), [5000], 250, GAPS)
    except WireError as error:
      assert "\n" not in str(error)
      continue
    assert len(places) == 250 and places[0] >= 0 and places[-1] < 5000
    assert (np.diff(places) > 0).all()
