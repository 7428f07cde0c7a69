"""LVS folders: chunks in order, any start, truth by the teacher's rules."""

import collections
import dataclasses

import numpy as np
import pytest

from ojd import labels as labels_lib
from ojd.formats import lvs_labels
from ojd.run import build
from ojd.run.config import RunConfig
from ojd.streams import base, lvs
from ojd.types import IGNORE
from tests.reference import labels_loop, lvs_folder, videos
from tests.reference.refusals import refused

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
  streams = lvs.STREAMS.values()
  assert len({stream.name for stream in streams}) == len(streams) == 30
  for stream in streams:
    labels_lib.parse_groups(stream.classes, lvs_labels.COCO_NAMES)
  counts = collections.Counter(stream.category for stream in streams)
  assert sorted(counts.values()) == [1, 2, 4, 5, 5, 6, 7]


@pytest.mark.parametrize("size", [(), (32, 96)])
def test_chunks_follow_each_other(driving, size):
  stream = _open(driving, *size)
  assert stream.spec[:4] == (*(size or (H, W)), 12.5, 9)
  assert stream.spec.default_classes == CLASSES
  assert _values(stream.read()) == list(range(9))


def test_truth_is_what_a_plain_loop_makes_of_the_labels(driving):
  stream = _open(driving)
  groups = labels_lib.parse_groups(CLASSES, lvs_labels.COCO_NAMES)
  matched = labels_lib.match_groups(groups, stream.spec.class_names)
  for sample in stream.read():
    boxes, ids, scores, masks = lvs_folder.record(sample.t)
    instances = (boxes * [H, W, H, W], scores, ids, masks)
    classes, _ = labels_loop.from_instances(
      instances, lvs_labels.COCO_NAMES, groups.members[1:], H, W
    )
    assert len(np.unique(classes)) > 1
    np.testing.assert_array_equal(matched.lookup[sample.truth], classes)


def test_classes_of_the_table_are_the_default(driving):
  config = RunConfig(f"lvs:{driving}", "ground_truth", workdir="x")
  for more, names in (({}, "person auto bike"), ({"classes": "car"}, "car")):
    job = build.make_job(dataclasses.replace(config, **more))
    assert job.groups.names == ("background", *names.split())


def test_other_classes_may_be_asked_for(tmp_path, driving):
  outside = lvs_folder.make(tmp_path, "park1", (2,))  # of the table
  some, groups = ("person", "cake", "chair"), "person;food=cake,chair"
  every = lvs_labels.COCO_NAMES[1:]
  for query, names, default in (
    (f"{driving}?classes={groups}", some, groups),
    (f"{driving}?classes=", every, ""),
    (outside, every, ""),
  ):
    spec = _open(query).spec
    assert spec.class_names == ("background", *names)
    assert spec.default_classes == default
  with refused("unicorn"):
    _open(f"{driving}?classes=unicorn")
  with refused("has no option 'class'"):
    _open(f"{driving}?class=car")


def test_without_labels_nothing_is_asked(tmp_path):
  stream = _open(lvs_folder.make(tmp_path, has_labels=False))
  assert stream.spec.class_names == ()
  assert stream.spec.default_classes == CLASSES
  assert [s.truth for s in stream.read()] == [None] * 9
  lvs_folder.save_labels(tmp_path, "driving1001", {1: lvs_folder.record(0)})
  truths = [sample.truth for sample in _open(tmp_path).read()]
  asked = [bool((truth != IGNORE).any()) for truth in truths]
  assert asked == [t == 6 for t in range(9)]


def test_identity_tells_frames_and_labels_apart(tmp_path, driving):
  before = _open(driving).spec.identity
  twin = lvs_folder.make(tmp_path / "driving1")
  assert _open(twin).spec.identity == before
  lvs_folder.save_labels(twin, "driving1000", {0: lvs_folder.record(99)})
  labelled = _open(twin).spec.identity
  assert labelled["labels"] != before["labels"]
  assert labelled["videos"] == before["videos"]
  lvs_folder.video(twin / "driving1000.mp4", [0] * 5)
  assert _open(twin).spec.identity["videos"] != before["videos"]


def test_broken_chunk_is_skipped_frame_by_frame(tmp_path):
  whole = lvs_folder.make(tmp_path / "whole", counts=(5,)) / "driving1000.mp4"
  root = lvs_folder.make(tmp_path / "broken")
  spoil = lambda i, packet: b"\xff" * len(packet) if i > 1 else packet
  videos.rewrite(whole, root / whole.name, spoil)
  samples = list(_open(root).read())
  assert [s.t for s in samples] == list(range(9))
  broken = [s for s in samples if s.frame is None]
  assert broken and all(whole.name in s.problem for s in broken)
  assert _values(samples[5:]) == [5, 6, 7, 8]


@pytest.mark.parametrize(
  ("names", "content", "words"),
  [
    ([], b"", "no .mp4"),
    (["driving.mp4"], b"", "three digits"),
    (["driving1000.mp4", "walking1000.mp4"], b"", "walking1000.mp4"),
    (["driving1000.mp4"], b"", "driving1000.mp4"),
    (["driving1000.mp4"], b"no video at all" * 100, "driving1000.mp4"),
  ],
)
def test_folders_of_other_things_are_refused(tmp_path, names, content, words):
  for name in names:
    (tmp_path / name).write_bytes(content)
  with refused(words):
    _open(tmp_path)
  with refused("no folder"):
    _open(tmp_path / "nowhere")


def test_broken_labels_are_told_when_they_are_reached(tmp_path):
  root = lvs_folder.make(tmp_path)
  path = root / f"{lvs_labels.PREFIX}driving1001.npy"
  path.write_bytes(path.read_bytes()[:1000])
  samples = _open(root).read()
  assert [next(samples).t for _ in range(5)] == list(range(5))
  with refused("driving1001.npy"):
    next(samples)
