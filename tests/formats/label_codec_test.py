"""Labels in few bytes: every bit comes back, and the bytes are few."""

import contextlib
import struct
import zlib

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ojd import labels as labels_lib
from ojd.formats import label_codec, map_codec
from ojd.streams import base
from ojd.types import IGNORE, Labels

# Most bytes of labels, by byte of their class map: as it is, or made small.
CLIPS = {
  ("camvid_0016E5_15hz", None, None): 0.0175,
  # The hardest: eleven classes, and the nearest pixel frays their edges.
  ("camvid_0016E5_15hz", 240, 320): 0.02,
  ("davis_dance-twirl", None, None): 0.004,
  ("sbi_HighwayI_first200", None, None): 0.012,
}


def _maps():
  """Maps of blocks, so that neighbours are equal, and maps of noise."""
  shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=24)
  noise = hnp.arrays(np.uint8, shapes)
  values = st.sampled_from([0, 1, 9, IGNORE])
  few = hnp.arrays(np.uint8, shapes, elements=values)
  grow = lambda x: np.repeat(np.repeat(x, 3, axis=0), 5, axis=1)
  return st.one_of(noise, few, few.map(grow))


def test_a_box_counted_by_hand():
  head = 32
  values = np.zeros((40, 50), np.uint8)
  assert len(map_codec.encode(values)) == head
  values[10:30, 20:40] = 3
  data = map_codec.encode(values)
  *counts, num_exceptions = struct.unpack_from("<8I", data)
  # Only the first corner comes out of the blue.
  assert num_exceptions == 1
  # Neighbours differ: behind that corner to one past the row's end; on 19 rows
  # at both sides of either edge; all along the row below, and at its ends.
  num_busy = 20 + 19 * 4 + 22
  assert sum(counts) == num_busy
  # All but the first row and the row below are as above, these as to the left.
  num_bits = num_busy + 19 + 20
  gap_and_value = 4 + 1
  assert len(data) == head + gap_and_value + -(-num_bits // 8)


def test_a_map_that_goes_on_after_its_last_row_is_refused():
  exception = struct.pack("<8I", *[0] * 7, 1) + struct.pack("<IB", 20, 1)
  symbols = struct.pack("<8I", 8, *[0] * 7) + b"\xff"
  for data in (exception, symbols):
    with pytest.raises(ValueError, match="goes on"):
      map_codec.decode(data, 4, 5)
  # One pixel earlier the first is the last of the map.
  got, _ = map_codec.decode(exception.replace(b"\x14", b"\x13"), 4, 5)
  assert got.ravel().tolist() == [0] * 19 + [1]


def _check(classes, weights):
  """Returns the bytes of labels that come back as they were."""
  data = label_codec.encode(Labels(classes, weights))
  got = label_codec.decode(data)
  np.testing.assert_array_equal(got.classes, classes)
  bits = [np.asarray(x).view(np.uint32) for x in (got.weights, weights)]
  np.testing.assert_array_equal(*bits)
  assert got.classes.dtype == np.uint8 and got.weights.dtype == np.float32
  got.classes[:], got.weights[:] = 1, 2  # what comes back may be written to
  return data


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(_maps(), st.data())
def test_every_bit_comes_back(classes, data):
  packed = map_codec.encode(classes)
  assert len(packed) <= map_codec.max_bytes(*classes.shape)
  got, end = map_codec.decode(b"ab" + packed + b"c", *classes.shape, start=2)
  np.testing.assert_array_equal(got, classes)
  assert end == 2 + len(packed)
  bits = data.draw(hnp.arrays(np.uint32, classes.shape))
  _check(classes, bits.view(np.float32))
  # Weights of few values, 0 where nothing is asked, and those of boxes.
  bits = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 2**31]))
  table = data.draw(hnp.arrays(np.uint32, st.integers(1, 20), elements=bits))
  indices = st.integers(0, len(table) - 1)
  indices = data.draw(hnp.arrays(np.intp, classes.shape, elements=indices))
  weights = table[indices].view(np.float32)
  _check(classes, weights)
  weights[classes == IGNORE] = 0
  _check(classes, weights)
  boxes = labels_lib.boxes_of_class_map(classes)
  _check(classes, labels_lib.pixel_weights(classes, boxes))


def test_labels_on_a_device_views_and_ignored_ones_are_taken():
  classes = np.arange(48, dtype=np.uint8).reshape(6, 8)
  weights = np.arange(48, dtype=np.float32).reshape(6, 8) % 3
  _check(jnp.asarray(classes), jnp.asarray(weights))
  _check(classes[::2, ::-1], weights.T.copy().T[::2, ::-1])
  for weight in np.float32([0, -0.0, 1, np.nan]):
    _check(np.full((3, 4), IGNORE, np.uint8), np.full((3, 4), weight))


CLASSES, WEIGHTS = np.zeros((4, 5), np.uint8), np.ones((4, 5), np.float32)
WIDE = np.zeros((1, 1 << 16), np.uint8)


@pytest.mark.parametrize(
  ("classes", "weights"),
  [
    (CLASSES.astype(np.int32), WEIGHTS),
    (CLASSES[0], WEIGHTS[0]),
    (CLASSES, WEIGHTS[:3]),
    (CLASSES, WEIGHTS.astype(np.float64)),
    (CLASSES[:0], WEIGHTS[:0]),
    (WIDE, WIDE.astype(np.float32)),
  ],
)
def test_other_arrays_are_refused(classes, weights):
  with pytest.raises(ValueError, match="classes|weights|labels"):
    label_codec.encode(Labels(classes, weights))


def _street(height, width):
  """Labels of a made-up street, of which a frame is ignored."""
  stream = base.open_stream("synthetic:street", height, width)
  classes = next(stream.read(60)).truth.copy()
  classes[: height // 8] = classes[:, : width // 8] = IGNORE
  groups = labels_lib.parse_groups("", stream.spec.class_names)
  return labels_lib.from_class_map(classes, groups)


def test_made_up_street_takes_few_bytes():
  for height, width, part in ((240, 320, 0.006), (720, 1280, 0.0015)):
    assert len(_check(*_street(height, width))) < part * height * width


@pytest.mark.parametrize("clip", CLIPS)
def test_clips_take_less_than_a_fiftieth_of_their_class_maps(clips, clip):
  name, *size = clip
  stream = base.open_stream(f"folder:{clips / name}", *size)
  groups = labels_lib.parse_groups("", stream.spec.class_names)
  parts = []
  for sample in stream.read():
    if sample.t % 8 == 0:
      data = _check(*labels_lib.from_class_map(sample.truth, groups))
      parts.append(len(data) / sample.truth.size)
  assert max(parts) < CLIPS[clip] <= 0.02
  assert np.mean(parts) < 0.0175


def _repack(data, change):
  """Labels with another content under the same head."""
  (num_values,) = struct.unpack_from("<4xB", data)
  start = 6 + 4 * num_values
  raw = bytearray(zlib.decompress(data[start:], -15))
  packer = zlib.compressobj(wbits=-15)
  return data[:start] + packer.compress(change(raw)) + packer.flush()


STREET = label_codec.encode(_street(40, 60))


def test_wrong_content_behind_a_right_head_ends_in_one_error():
  rng = np.random.default_rng(1)

  def change(raw):
    for place in rng.integers(0, len(raw), 2):
      raw[place] = rng.integers(0, 256)
    return raw[: rng.integers(0, 2 * len(raw))]

  for _ in range(300):
    with contextlib.suppress(ValueError):
      labels = label_codec.decode(_repack(STREET, change))
      assert labels.classes.shape == labels.weights.shape == (40, 60)


def test_cut_and_flipped_bytes_end_in_one_error():
  for end in range(len(STREET)):
    with pytest.raises(ValueError):
      label_codec.decode(STREET[:end])
  rng = np.random.default_rng(2)
  for place in rng.integers(6, len(STREET), 300):
    flipped = bytearray(STREET)
    flipped[place] ^= 1 << rng.integers(0, 8)
    with contextlib.suppress(ValueError):
      label_codec.decode(bytes(flipped))


def _bomb(height):
  packer = zlib.compressobj(9, wbits=-15)
  bomb = packer.compress(bytes(1 << 24)) + packer.flush()
  return struct.pack("<HHBB", height, 1, 1, 0) + bytes(4) + bomb


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (STREET + b"x", "follows"),
    (_repack(STREET, lambda raw: raw + b"x"), "follows the weights"),
    # Frames of unheard size are not made, and bombs not unpacked.
    (struct.pack("<HHBB", 60_000, 60_000, 0, 0) + bytes(99), "pixels"),
    *((_bomb(height), ".") for height in (0, 1, 1000, (1 << 16) - 1)),
  ],
)
def test_odd_bytes_are_refused(data, words):
  with pytest.raises(ValueError, match=words):
    label_codec.decode(data)
