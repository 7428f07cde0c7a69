"""Recordings as teachers: of this stream, of another, of LVS's authors."""

import numpy as np
import pytest

from ojd.formats import lvs_labels
from ojd.run import build, recorder
from ojd.run.config import RunConfig
from ojd.streams import base as streams
from ojd.teachers import base, recorded
from ojd.types import Sample
from tests.reference import loop_run, lvs_folder, scenes
from tests.reference.refusals import refused

ADDRESS = "synthetic:street?num_frames=6"
SIZE = 32, 48


def _open(address=ADDRESS, size=SIZE):
  return streams.open_stream(address, *size)


def _teacher(text, stream):
  return build.make_teacher(RunConfig(teacher=text), stream.spec)


def _record(path, stream, teacher=None, name="ground_truth", **options):
  teacher = teacher or _teacher(name, stream)
  return recorder.record(
    stream, teacher, str(path), teacher_name=name, **options
  )


class _Exact:
  """The instances that a synthetic stream draws."""

  is_free = True

  def __init__(self, stream):
    self.class_names, self._stream = stream.spec.class_names, stream

  def __call__(self, sample):
    return self._stream.instances(sample.t)


@pytest.mark.parametrize("kind", ["class maps", "instances"])
def test_labels_are_those_of_the_teacher(tmp_path, kind):
  stream = _open()
  asked = _Exact(stream)
  if kind == "class maps":
    asked = _teacher("ground_truth", stream)
  done = _record(tmp_path, stream, asked)
  assert (done.num_records, done.num_failures, done.start) == (6, 0, 0)
  teacher = _teacher(f"recorded:path={tmp_path}", stream)
  assert teacher.is_free
  assert teacher.class_names == stream.spec.class_names
  groups = build.labels.parse_groups("", teacher.class_names)
  for sample in stream.read(2):
    got = base.label(teacher, sample, groups)
    expected = base.label(asked, sample, groups)
    np.testing.assert_array_equal(got.classes, expected.classes)
    np.testing.assert_array_equal(got.weights, expected.weights)


@pytest.mark.parametrize(
  ("address", "size", "words"),
  [
    (f"{ADDRESS}&seed=1", SIZE, ["stream (synthetic", "seed=0", "seed=1"]),
    (ADDRESS, (64, 48), ["height (32, now 64)"]),
    (ADDRESS, (32, 64), ["width (48, now 64)"]),
    ("synthetic:park", (64, 64), ["park", "height", "width"]),
  ],
)
def test_recording_of_another_stream_is_refused(tmp_path, address, size, words):
  _record(tmp_path, _open())
  with refused("of another stream", str(tmp_path), *words):
    _teacher(f"recorded:path={tmp_path}", _open(address, size))


def test_frame_that_was_not_recorded_is_not_the_end(tmp_path):
  stream = _open()
  assert _record(tmp_path, stream, every=4).num_records == 2
  teacher = _teacher(f"recorded:path={tmp_path}", stream)
  samples = list(stream.read())
  for t in (0, 4):
    np.testing.assert_array_equal(teacher(samples[t]), samples[t].truth)
  with pytest.raises(recorded.MissingFrameError, match="frame 1"):
    teacher(samples[1])


def test_what_is_no_recording_is_refused(tmp_path):
  (tmp_path / "file.npy").write_bytes(b"")
  (tmp_path / "empty").mkdir()
  _record(tmp_path / "none", _open())
  about = recorded.Recording(tmp_path / "none").description
  with recorded.Writer(tmp_path / "none", about) as writer:
    writer._log.truncate_from(0)
  how = "experiments.record"
  for text, words in (
    ("", "path=PATH is missing"),
    (":path=", "path=PATH is missing"),
    *((f":path={tmp_path / x}", how) for x in ("nowhere", "no.npy", "empty")),
    (f":path={tmp_path / 'none'}", "holds no frames"),
  ):
    with refused(words):
      _teacher(f"recorded{text}", _open())


def test_teacher_that_fails_leaves_a_gap(tmp_path):
  stream, told = scenes.Stream(), []
  teacher = loop_run.Teacher(stream, failures={2: 9, 4: 2})
  done = _record(tmp_path, stream, teacher, progress_fn=told.append)
  assert teacher.calls[:10] == [0, 1, 2, 2, 2, 3, 4, 4, 4, 5]
  assert done.num_failures == 1
  (problem,) = [x.problem for x in told if x.problem or x.t == 2]
  assert "frame 2: RuntimeError: out of memory" in problem
  recording = recorded.Recording(tmp_path)
  assert recording.frames == [0, 1, *range(3, loop_run.NUM_FRAMES)]


def _save_lvs(root, chunk, num):
  """A file of the authors, whose frame t has one box, of class 1 + t."""
  box = np.array([[0.25, 0.25, 0.75, 0.75]])
  masks = [np.ones((28, 28), np.float32)]
  content = {t: [box, [1 + t], np.float32([0.9]), masks] for t in range(num)}
  lvs_folder.save_labels(root, chunk, content)
  return root / f"{lvs_labels.PREFIX}{chunk}.npy"


def _open_lvs(path, identity):
  context = base.Context((), *SIZE, identity)
  return recorded.make_teacher(context, path=str(path))


def _ids(teacher, ts):
  return [teacher(Sample(t, None, None)).class_ids.tolist() for t in ts]


LVS = {"kind": "lvs", "chunks": [["dogs2000", 3], ["dogs2001", 4]]}


def test_lvs_labels_are_matched_by_chunk(tmp_path):
  # Those of one file answer for the frames of any stream.
  path = _save_lvs(tmp_path, "dogs2000", 3)
  for place in (path, tmp_path):
    teacher = _open_lvs(place, {"kind": "video"})
    assert teacher.is_free and teacher.class_names[1] == "person"
    assert _ids(teacher, (2, 0)) == [[3], [1]]
    boxes = teacher(Sample(0, None, None)).boxes
    np.testing.assert_array_equal(boxes, [[8, 12, 24, 36]])
    with pytest.raises(recorded.MissingFrameError, match="frame 3"):
      _ids(teacher, [3])
  second = _save_lvs(tmp_path, "dogs2001", 4)
  teacher = _open_lvs(tmp_path, LVS)
  assert _ids(teacher, range(7)) == [[1], [2], [3], [1], [2], [3], [4]]
  teacher = _open_lvs(second, LVS)
  assert _ids(teacher, (3, 6)) == [[1], [4]]
  with pytest.raises(recorded.MissingFrameError, match="frame 2"):
    _ids(teacher, [2])


@pytest.mark.parametrize(
  ("chunks", "identity", "words"),
  [
    (["birds2000"], LVS, "dogs2000"),
    (["dogs2000"], {"kind": "window", "of": LVS}, "--start_frame"),
    (["dogs2000"], {"kind": "concat", "of": LVS}, "--start_frame"),
    (["dogs2000", "dogs2001"], {"kind": "folder"}, "2 label files"),
  ],
)
def test_lvs_labels_that_are_refused(tmp_path, chunks, identity, words):
  for chunk in chunks:
    _save_lvs(tmp_path, chunk, 3)
  with refused(words):
    _open_lvs(tmp_path, identity)
