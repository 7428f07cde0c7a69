"""LVS folders: chunks in order, any start, truth by the teacher's rules."""

import dataclasses
import json

import numpy as np
import pytest

from ojd import labels as labels_lib
from ojd.errors import UserError
from ojd.formats import lvs_labels
from ojd.run import build
from ojd.run.config import RunConfig
from ojd.streams import base, lvs
from ojd.types import IGNORE
from tests.reference import labels_loop, lvs_folder

H, W = lvs_folder.H, lvs_folder.W
CLASSES = "person;auto=car,bus,truck;bike=bicycle,motorcycle"


@pytest.fixture(scope="module")
def driving(tmp_path_factory):
  return lvs_folder.make(tmp_path_factory.mktemp("lvs") / "driving1")


def _open(root, *size):
  return base.open_stream(f"lvs:{root}", *size)


def _values(samples):
  """Which frame each image shows, by its grey."""
  return [round((s.frame.mean() - 20) / 22) for s in samples]


def test_table_holds_the_thirty():
  assert len(lvs.STREAMS) == 30
  assert len({stream.name for stream in lvs.STREAMS.values()}) == 30
  for stream in lvs.STREAMS.values():
    labels_lib.parse_groups(stream.classes, lvs_labels.COCO_NAMES)
  counts = {}
  for stream in lvs.STREAMS.values():
    counts[stream.category] = counts.get(stream.category, 0) + 1
  assert counts == {
    **{"Sports (Fixed)": 4, "Sports (Moving)": 7, "Sports (Ego)": 5},
    **{"Animals": 5, "Traffic": 6, "Driving/Walking": 2, "Overall": 1},
  }


def test_chunks_follow_each_other(driving):
  stream = _open(driving)
  spec = stream.spec
  assert (spec.height, spec.width, spec.num_frames) == (H, W, 9)
  assert spec.fps == 12.5
  assert spec.default_classes == CLASSES
  samples = list(stream.read())
  assert [s.t for s in samples] == list(range(9))
  assert _values(samples) == list(range(9))
  assert all(s.frame.shape == (H, W, 3) for s in samples)
  assert all(s.frame.dtype == np.uint8 for s in samples)


@pytest.mark.parametrize("start", range(11))
def test_any_frame_can_be_the_first(driving, start):
  stream = _open(driving)
  whole = list(stream.read())[start:]
  part = list(stream.read(start))
  assert [s.t for s in part] == list(range(start, 9))
  for a, b in zip(part, whole, strict=True):
    np.testing.assert_array_equal(a.frame, b.frame)
    np.testing.assert_array_equal(a.truth, b.truth)


def test_truth_is_what_a_plain_loop_makes_of_the_labels(driving):
  stream = _open(driving)
  groups = labels_lib.parse_groups(CLASSES, lvs_labels.COCO_NAMES)
  matched = labels_lib.match_groups(groups, stream.spec.class_names)
  for sample in stream.read():
    boxes, ids, scores, masks = lvs_folder.record(sample.t)
    classes, _ = labels_loop.from_instances(
      (boxes * [H, W, H, W], scores, ids, masks),
      lvs_labels.COCO_NAMES,
      groups.members[1:],
      H,
      W,
    )
    assert len(np.unique(classes)) > 1
    np.testing.assert_array_equal(matched.lookup[sample.truth], classes)


def test_frames_and_truth_are_resized(driving):
  stream = _open(driving, 32, 96)
  samples = list(stream.read())
  assert _values(samples) == list(range(9))
  assert all(s.frame.shape == (32, 96, 3) for s in samples)
  assert all(s.truth.shape == (32, 96) for s in samples)


def test_classes_of_the_table_are_the_default(driving):
  config = RunConfig(f"lvs:{driving}", "ground_truth", workdir="x")
  made = build.make_job(config)
  assert made.groups.names == ("background", "person", "auto", "bike")
  config = dataclasses.replace(config, classes="car")
  assert build.make_job(config).groups.names == ("background", "car")


def test_other_classes_may_be_asked_for(driving):
  stream = _open(f"{driving}?classes=person;food=cake,chair")
  assert stream.spec.class_names == ("background", "person", "cake", "chair")
  assert stream.spec.default_classes == "person;food=cake,chair"
  stream = _open(f"{driving}?classes=")
  assert stream.spec.class_names == lvs_labels.COCO_NAMES
  assert stream.spec.default_classes == ""
  with pytest.raises(UserError, match="unicorn"):
    _open(f"{driving}?classes=unicorn")
  with pytest.raises(UserError, match="has no option 'class'"):
    _open(f"{driving}?class=car")


def test_stream_outside_the_table_tells_all_classes_apart(tmp_path):
  spec = _open(lvs_folder.make(tmp_path, "park1", (2,))).spec
  assert spec.class_names == lvs_labels.COCO_NAMES
  assert spec.default_classes == ""


def test_without_labels_there_is_no_truth(tmp_path):
  stream = _open(lvs_folder.make(tmp_path, has_labels=False))
  assert stream.spec.class_names == ()
  assert stream.spec.default_classes == CLASSES
  assert [s.truth for s in stream.read()] == [None] * 9


def test_frames_without_labels_are_nobodys_question(tmp_path):
  lvs_folder.make(tmp_path, has_labels=False)
  lvs_folder.save_labels(tmp_path, "driving1001", {1: lvs_folder.record(0)})
  truths = [sample.truth for sample in _open(tmp_path).read()]
  asked = [bool((truth != IGNORE).any()) for truth in truths]
  assert asked == [t == 6 for t in range(9)]


def test_identity_tells_frames_and_labels_apart(tmp_path, driving):
  spec = _open(driving).spec
  assert spec.identity == json.loads(json.dumps(spec.identity))
  twin = lvs_folder.make(tmp_path / "driving1")
  assert _open(twin).spec.identity == spec.identity
  lvs_folder.save_labels(twin, "driving1000", {0: lvs_folder.record(99)})
  labelled = _open(twin).spec.identity
  assert labelled["labels"] != spec.identity["labels"]
  assert labelled["videos"] == spec.identity["videos"]
  lvs_folder.video(twin / "driving1000.mp4", [0] * 5)
  assert _open(twin).spec.identity["videos"] != spec.identity["videos"]


def test_broken_chunk_is_skipped_frame_by_frame(tmp_path, driving):
  root = lvs_folder.make(tmp_path)
  path = root / "driving1000.mp4"
  whole = bytearray(path.read_bytes())
  start = whole.index(b"mdat") + 4
  size = int.from_bytes(whole[start - 8 : start - 4], "big") - 8
  middle = start + size // 2
  whole[middle : start + size] = b"\xff" * (start + size - middle)
  path.write_bytes(whole)
  samples = list(_open(root).read())
  assert [s.t for s in samples] == list(range(9))
  broken = [s for s in samples if s.frame is None]
  assert broken and all("driving1000.mp4" in s.problem for s in broken)
  assert _values(samples[5:]) == [5, 6, 7, 8]


@pytest.mark.parametrize(
  ("names", "word"),
  [
    ([], "no .mp4"),
    (["driving.mp4"], "three digits"),
    (["driving1000.mp4", "walking1000.mp4"], "walking1000.mp4"),
  ],
)
def test_folders_of_other_things_are_refused(tmp_path, names, word):
  for name in names:
    (tmp_path / name).write_bytes(b"")
  with pytest.raises(UserError, match=word):
    _open(tmp_path)


def test_missing_folder_and_broken_videos_are_refused(tmp_path):
  with pytest.raises(UserError, match="no folder"):
    _open(tmp_path / "nowhere")
  path = tmp_path / "driving1000.mp4"
  for content in (b"", b"no video at all" * 100):
    path.write_bytes(content)
    with pytest.raises(UserError, match="driving1000.mp4"):
      _open(tmp_path)


def test_broken_labels_are_told_when_they_are_reached(tmp_path):
  root = lvs_folder.make(tmp_path)
  path = root / f"{lvs_labels.PREFIX}driving1001.npy"
  path.write_bytes(path.read_bytes()[:1000])
  samples = _open(root).read()
  assert [next(samples).t for _ in range(5)] == list(range(5))
  with pytest.raises(UserError, match="driving1001.npy"):
    next(samples)
