"""Recordings: what comes back, what a torn or flipped file does."""

import struct
import zlib

import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.formats import label_codec
from ojd.formats import log as log_lib
from ojd.teachers import recorded
from ojd.types import IGNORE, Instances
from tests.reference.refusals import refused

H, W = 12, 17
NAMES = ("background", "person", "car", "dog")


ABOUT = recorded.Description("class_map", "oracle", NAMES, {"seed": 3}, H, W, 9)


def _open_writer(path, kind="class_map"):
  return recorded.Writer(path, msgspec.structs.replace(ABOUT, kind=kind))


def _class_map(t):
  rng = np.random.default_rng(t)
  return rng.choice([0, 1, 2, 3, IGNORE], (H, W)).astype(np.uint8)


def _write(path, answers, *kind):
  with _open_writer(path, *kind) as writer:
    for t, answer in answers.items():
      writer.write(t, answer)
  return path


def _soft(num=3, side=7, seed=0):
  rng = np.random.default_rng(seed)
  corners = rng.uniform(-3, 12, (num, 2))
  scores, masks = rng.uniform(size=num), rng.uniform(size=(num, side, side))
  boxes, class_ids = np.hstack([corners, corners + 6]), rng.integers(0, 4, num)
  return Instances(
    *map(np.float32, (boxes, scores)), np.int32(class_ids), np.float32(masks)
  )


_quick = hypothesis.settings(max_examples=60, deadline=None)
_HALVES = [float(np.nextafter(np.float32(0.5), np.float32(0))), 0.5]


def _there_and_back(answer):
  payload = label_codec.encode_answer("instances", answer, H, W, 4)
  return label_codec.decode_answer("instances", payload, H, W, 4)


# The last float below one half is on the other side of it.
_UNIT = st.one_of(st.floats(0, 1, width=32), st.sampled_from(_HALVES))
_PIXEL = st.floats(-40, 60, width=32)


@st.composite
def _instances(draw, size):
  num = draw(st.integers(0, 4))
  parts = (
    (np.float32, (num, 4), _PIXEL),
    (np.float32, num, _UNIT),
    (np.int32, num, st.integers(0, 3)),
    (np.float32, (num, *size), _UNIT),
  )
  return Instances(
    *(draw(hnp.arrays(*part[:2], elements=part[2])) for part in parts)
  )


@_quick
@hypothesis.given(_instances((6, 6)))
def test_any_soft_masks_come_back(answer):
  got = _there_and_back(answer)
  for part, expected in zip(got[:3], answer[:3], strict=True):
    np.testing.assert_array_equal(part, expected)
    assert part.dtype == expected.dtype
  if len(answer.boxes):
    np.testing.assert_array_equal(got.masks >= 0.5, answer.masks >= 0.5)
    assert np.abs(got.masks - answer.masks).max() < 1 / 255
  assert len(got.masks) == len(answer.masks)


@_quick
@hypothesis.given(_instances((H, W)))
def test_whole_masks_give_the_same_labels(answer):
  got = _there_and_back(answer)
  assert got.masks.shape == answer.masks.shape
  groups = labels_lib.parse_groups("", NAMES)
  expected = labels_lib.from_instances(answer, groups, H, W)
  same = labels_lib.from_instances(got, groups, H, W)
  np.testing.assert_array_equal(same.classes, expected.classes)
  np.testing.assert_array_equal(same.weights, expected.weights)


def test_written_and_read_at_random(tmp_path):
  answers = {t: _class_map(t) for t in (0, 3, 4, 8)}
  record = recorded.Recording(_write(tmp_path / "r", answers))
  assert record.frames == [0, 3, 4, 8] and len(record) == 4
  assert record.description == ABOUT
  for t in (8, 0, 4, 3, 0):
    np.testing.assert_array_equal(record.read(t), answers[t])
  with pytest.raises(recorded.MissingFrameError, match="frame 5"):
    record.read(5)
  assert not issubclass(recorded.MissingFrameError, UserError)


def test_frames_come_in_order_and_kinds_do_not_mix(tmp_path):
  with _open_writer(tmp_path) as writer:
    writer.write(4, _class_map(0))
    for t in (4, 3, -1, 2**40):
      with pytest.raises(ValueError, match="after frame 4"):
        writer.write(t, _class_map(0))
    with refused("is instances, those before"):
      writer.write(5, _soft())


def _bad_answers():
  whole, soft = _class_map(0), _soft()
  for answer in (whole[:-1], whole.astype(np.int32), np.full_like(whole, 4)):
    yield "class_map", answer
  for change in (
    {"scores": np.float32([0.1, np.nan, 0.1])},
    {"scores": np.float32([0.1, 1.5, 0.1])},
    {"scores": soft.scores[:2]},
    {"class_ids": np.int32([0, 4, 1])},
    {"class_ids": np.int32([0, -1, 1])},
    {"class_ids": np.float32([0, 1, 1])},
    {"boxes": soft.boxes * np.inf},
    *({"masks": soft.masks[part]} for part in (slice(2), 0)),
    *({"masks": soft.masks * np.float32(by)} for by in (2, np.nan)),
    {"masks": soft.masks.astype(np.complex64)},
  ):
    yield "instances", soft._replace(**change)


@pytest.mark.parametrize(("kind", "answer"), list(_bad_answers()))
def test_nonsense_is_not_recorded(tmp_path, kind, answer):
  with _open_writer(tmp_path, kind) as writer:
    with refused("frame 0 cannot be recorded"):
      writer.write(0, answer)
    assert writer.num_records == 0
    assert recorded.Recording(tmp_path).frames == []


@pytest.mark.parametrize("kind", ["class_map", "instances"])
def test_flipped_bits_never_give_a_wrong_answer(tmp_path, kind):
  """Whatever is read is right; else there is one line about it."""
  make = _class_map if kind == "class_map" else (lambda t: _soft(seed=t))
  _write(tmp_path, {t: make(t) for t in range(4)}, kind)
  path = tmp_path / recorded.LOG
  whole = path.read_bytes()

  def read():
    record = recorded.Recording(tmp_path)
    return {t: [x.tobytes() for x in record.read(t)] for t in record.frames}

  expected, rng = read(), np.random.default_rng(0)
  for bit in rng.integers(0, 8 * len(whole), 400):
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(flipped)
    try:
      assert read().items() <= expected.items()
    except UserError as error:
      assert str(tmp_path) in str(error) and "\n" not in str(error)


def _deflate(raw):
  return zlib.compress(raw, 9, wbits=-15)


@pytest.mark.parametrize("kind", ["class_map", "instances"])
def test_random_payloads_behind_a_right_checksum(kind):
  """A file made by an enemy, whose checksums are right."""
  good = _class_map(0) if kind == "class_map" else _soft()
  raw = zlib.decompress(label_codec.encode_answer(kind, good, H, W, 4), -15)
  rng = np.random.default_rng(1)
  for _ in range(300):
    changed = bytearray(raw)
    for place in rng.integers(0, len(raw), 3):
      changed[place] = rng.integers(0, 256)
    changed = changed[: rng.integers(0, len(raw) + 1)] or b""
    try:
      got = label_codec.decode_answer(kind, _deflate(changed), H, W, 4)
    except ValueError:
      continue
    label_codec.encode_answer(kind, got, H, W, 4)


def test_neither_bombs_nor_many_huge_masks_are_unpacked():
  counts = struct.pack("<HHH", 9999, 8192, 8192)
  for kind, content, size, words in (
    ("class_map", bytes(1 << 26), (H, W), "more than"),
    ("instances", counts + bytes(9999 * 22), (8192, 8192), "masks"),
  ):
    with pytest.raises(ValueError, match=words):
      label_codec.decode_answer(kind, _deflate(content), *size, 4)


@pytest.mark.parametrize(
  ("changes", "word"),
  [
    ({"kind": "video"}, "kind"),
    ({"class_names": []}, "class_names"),
    ({"class_names": [1]}, "class_names"),
    ({"class_names": "person"}, "class_names"),
    ({"height": 0}, "height"),
    ({"width": 10**9}, "width"),
    ({"width": True}, "width"),
    ({"stream": "street" * 99}, "stream"),
    ({"num_frames": "9"}, "num_frames"),
  ],
)
def test_bad_descriptions_are_refused(tmp_path, changes, word):
  identity = msgspec.structs.asdict(ABOUT) | changes
  log_lib.Writer(tmp_path / recorded.LOG, recorded._FORMAT, identity).close()
  with refused(word, str(tmp_path)) as error:
    recorded.Recording(tmp_path)
  assert len(str(error.value)) < 500


def test_what_is_no_recording_is_refused_in_a_line(tmp_path):
  (tmp_path / "recording.json").write_text("{}")
  (tmp_path / "records.bin").write_bytes(b"OJDR")
  for open_one in (recorded.Recording, _open_writer):
    with refused("former format; record again"):
      open_one(tmp_path)


def test_damage_is_refused_or_costs_its_frame_alone(tmp_path):
  path = _write(tmp_path, {t: _class_map(t) for t in range(3)}) / recorded.LOG
  whole = bytearray(path.read_bytes())
  _, span, last = log_lib.read(path, recorded._FORMAT).spans
  # A torn payload at the full length is dropped.
  path.write_bytes(whole[:-30] + bytes(30))
  assert recorded.Recording(tmp_path).frames == [0, 1]
  path.write_bytes(whole + whole[last.start :])
  with refused("a frame twice"):
    recorded.Recording(tmp_path)
  whole[span.payload_start] ^= 1
  path.write_bytes(whole)
  record = recorded.Recording(tmp_path)
  with refused("record of frame 1 is damaged"):
    record.read(1)
  np.testing.assert_array_equal(record.read(2), _class_map(2))
  whole[span.start] ^= 1  # between records
  path.write_bytes(whole)
  for open_one in (recorded.Recording, _open_writer):
    with refused(f"damaged at byte {span.start}"):
      open_one(tmp_path)
  assert path.read_bytes() == whole
