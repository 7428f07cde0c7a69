"""Labels in few bytes: every bit comes back, and the bytes are few."""

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

CLIPS = {
  "camvid_0016E5_15hz": 0.0175,
  "davis_car-roundabout": 0.002,
  "davis_car-shadow": 0.002,
  "davis_dance-twirl": 0.004,
  "sbi_HighwayI_first200": 0.012,
}


def _quick(test):
  return hypothesis.settings(max_examples=100, deadline=None)(test)


def _maps(max_side=24):
  """Maps of blocks, so that neighbours are equal, and maps of noise."""
  shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=max_side)
  noise = hnp.arrays(np.uint8, shapes)
  few = hnp.arrays(
    np.uint8, shapes, elements=st.sampled_from([0, 1, 9, IGNORE])
  )
  grow = lambda x: np.repeat(np.repeat(x, 3, axis=0), 5, axis=1)
  return st.one_of(noise, few, few.map(grow))


@_quick
@hypothesis.given(_maps())
def test_any_map_comes_back(values):
  data = map_codec.encode(values)
  assert len(data) <= map_codec.max_bytes(*values.shape)
  got, end = map_codec.decode(b"ab" + data + b"c", *values.shape, start=2)
  np.testing.assert_array_equal(got, values)
  assert end == 2 + len(data)


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


def _assert_same(got, labels):
  np.testing.assert_array_equal(got.classes, labels.classes)
  bits = [np.asarray(x.weights).view(np.uint32) for x in (got, labels)]
  np.testing.assert_array_equal(*bits)
  assert got.classes.dtype == np.uint8 and got.weights.dtype == np.float32


def _check(classes, weights):
  labels = Labels(classes, np.asarray(weights, np.float32))
  _assert_same(label_codec.decode(label_codec.encode(labels)), labels)


@_quick
@hypothesis.given(_maps(), st.data())
def test_weights_of_any_bits_come_back(classes, data):
  bits = data.draw(hnp.arrays(np.uint32, classes.shape))
  _check(classes, bits.view(np.float32))


@_quick
@hypothesis.given(_maps(), st.data())
def test_few_weights_of_any_bits_come_back(classes, data):
  bits = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 2**31]))
  table = data.draw(hnp.arrays(np.uint32, st.integers(1, 20), elements=bits))
  indices = data.draw(
    hnp.arrays(np.intp, classes.shape, elements=st.integers(0, len(table) - 1))
  )
  weights = table[indices].view(np.float32)
  _check(classes, weights)
  weights[classes == IGNORE] = 0
  _check(classes, weights)


@_quick
@hypothesis.given(_maps())
def test_weights_of_boxes_come_back(classes):
  boxes = labels_lib.boxes_of_class_map(classes)
  _check(classes, labels_lib.pixel_weights(classes, boxes))


@pytest.mark.parametrize("weight", [0.0, -0.0, 1.0, np.nan])
def test_all_may_be_ignored(weight):
  _check(np.full((3, 4), IGNORE, np.uint8), np.full((3, 4), weight))


def test_labels_on_a_device_and_views_are_taken():
  classes = np.arange(48, dtype=np.uint8).reshape(6, 8)
  weights = np.arange(48, dtype=np.float32).reshape(6, 8) % 3
  for labels in (
    Labels(jnp.asarray(classes), jnp.asarray(weights)),
    Labels(classes[::2, ::-1], weights.T.copy().T[::2, ::-1]),
  ):
    _assert_same(label_codec.decode(label_codec.encode(labels)), labels)


def test_what_comes_back_may_be_written_to():
  labels = Labels(np.zeros((3, 4), np.uint8), np.ones((3, 4), np.float32))
  got = label_codec.decode(label_codec.encode(labels))
  got.classes[:], got.weights[:] = 1, 2


def _bad_labels():
  classes, weights = np.zeros((4, 5), np.uint8), np.ones((4, 5), np.float32)
  yield classes.astype(np.int32), weights
  yield classes[0], weights[0]
  yield classes, weights[:3]
  yield classes, weights.astype(np.float64)
  yield classes[:0], weights[:0]
  yield np.zeros((1, 1 << 16), np.uint8), np.zeros((1, 1 << 16), np.float32)


@pytest.mark.parametrize(("classes", "weights"), list(_bad_labels()))
def test_other_arrays_are_refused(classes, weights):
  with pytest.raises(ValueError, match="classes|weights|labels"):
    label_codec.encode(Labels(classes, weights))


def _street(height, width):
  """A scene of bands and boxes, with an ignored rim around each box."""
  rng = np.random.default_rng(0)
  classes = np.zeros((height, width), np.uint8)
  columns = np.arange(width)
  for label in (1, 2, 3):
    waves = np.sin(columns / width * rng.uniform(5, 30) + rng.uniform(0, 6))
    top = (height * (0.2 + 0.2 * label) + 0.04 * height * waves).astype(int)
    classes[np.arange(height)[:, None] >= top] = label
  for label in range(4, 10):
    y, x = rng.integers(0, height * 3 // 4), rng.integers(0, width * 3 // 4)
    classes[y : y + height // 5, x : x + width // 6] = IGNORE
    classes[y + 2 : y + height // 5 - 2, x + 2 : x + width // 6 - 2] = label
  boxes = labels_lib.boxes_of_class_map(np.where(classes > 3, classes, 0))
  return Labels(classes, labels_lib.pixel_weights(classes, boxes))


@pytest.mark.parametrize(
  ("height", "width", "part"), [(240, 320, 0.008), (720, 1280, 0.002)]
)
def test_made_up_street_takes_few_bytes(height, width, part):
  labels = _street(height, width)
  data = label_codec.encode(labels)
  assert len(data) < part * height * width
  _assert_same(label_codec.decode(data), labels)


def _parts_of_clip(path, height=None, width=None):
  """By frame, bytes of the labels per byte of their class map."""
  stream = base.open_stream(f"folder:{path}", height, width)
  groups = labels_lib.parse_groups("", stream.spec.class_names)
  for sample in stream.read():
    if sample.t % 8 == 0:
      labels = labels_lib.from_class_map(sample.truth, groups)
      data = label_codec.encode(labels)
      _assert_same(label_codec.decode(data), labels)
      yield len(data) / labels.classes.size


@pytest.mark.parametrize("name", CLIPS)
def test_clips_take_less_than_a_fiftieth_of_their_class_maps(clips, name):
  assert max(_parts_of_clip(clips / name)) < CLIPS[name] < 0.02


def test_so_does_the_street_made_small(clips):
  # The hardest: eleven classes, and the nearest pixel frays their edges.
  parts = list(_parts_of_clip(clips / "camvid_0016E5_15hz", 240, 320))
  assert np.mean(parts) < 0.0175 and max(parts) < 0.02


def _repack(data, change):
  """Labels with another content under the same head."""
  (num_values,) = struct.unpack_from("<4xB", data)
  start = 6 + 4 * num_values
  raw = bytearray(zlib.decompress(data[start:], -15))
  packer = zlib.compressobj(wbits=-15)
  return data[:start] + packer.compress(change(raw)) + packer.flush()


def test_wrong_content_behind_a_right_head_ends_in_one_error():
  data = label_codec.encode(_street(40, 60))
  rng = np.random.default_rng(1)

  def change(raw):
    for place in rng.integers(0, len(raw), 2):
      raw[place] = rng.integers(0, 256)
    return raw[: rng.integers(0, 2 * len(raw))]

  for _ in range(300):
    try:
      labels = label_codec.decode(_repack(data, change))
    except ValueError:
      continue
    assert labels.classes.shape == labels.weights.shape == (40, 60)


def test_cut_and_flipped_bytes_end_in_one_error():
  data = label_codec.encode(_street(40, 60))
  for end in range(len(data)):
    with pytest.raises(ValueError):
      label_codec.decode(data[:end])
  with pytest.raises(ValueError, match="follows"):
    label_codec.decode(data + b"x")
  rng = np.random.default_rng(2)
  for place in rng.integers(6, len(data), 300):
    flipped = bytearray(data)
    flipped[place] ^= 1 << rng.integers(0, 8)
    try:
      label_codec.decode(bytes(flipped))
    except ValueError:
      continue


def test_something_after_the_weights_is_refused():
  data = label_codec.encode(_street(40, 60))
  with pytest.raises(ValueError, match="follows the weights"):
    label_codec.decode(_repack(data, lambda raw: raw + b"x"))


@pytest.mark.parametrize("height", [0, 1, 1000, (1 << 16) - 1])
def test_bomb_is_not_unpacked(height):
  packer = zlib.compressobj(9, wbits=-15)
  bomb = packer.compress(bytes(1 << 24)) + packer.flush()
  head = struct.pack("<HHBB", height, 1, 1, 0) + bytes(4)
  with pytest.raises(ValueError):
    label_codec.decode(head + bomb)


def test_frames_of_unheard_size_are_not_made():
  with pytest.raises(ValueError, match="pixels"):
    label_codec.decode(struct.pack("<HHBB", 60_000, 60_000, 0, 0) + bytes(99))
