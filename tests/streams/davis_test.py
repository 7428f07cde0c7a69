"""DAVIS: its layouts, its numbers of objects, its splits, what is refused."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.streams import base
from ojd.types import IGNORE

H, W = 36, 48
SEQUENCES = {"bear": 3, "camel": 2, "swan": 4}  # number of frames


def _frame(name, t, size=(H, W)):
  """A flat colour, which JPEG keeps."""
  value = 20 + 50 * sorted(SEQUENCES).index(name) + 10 * t
  return np.full((*size, 3), value, np.uint8)


def _numbers(name, t, size=(H, W)):
  """Objects 1 and 2, a rim of void, and for the camel an object 3."""
  numbers = np.zeros(size, np.uint8)
  numbers[4 + t : 12, 4:20] = 1
  numbers[14:30, 20 : 40 - t] = 3 if name == "camel" else 2
  numbers[-2:] = 255
  return numbers


def _save_numbers(numbers, path):
  """As DAVIS does: a palette of colours, and indices into it."""
  image = Image.frombytes("P", numbers.shape[::-1], numbers.tobytes())
  colours = np.random.default_rng(0).integers(1, 256, (256, 3))
  colours[:2] = [[255] * 3, [0] * 3]  # what looks white is the background
  image.putpalette(colours.astype(np.uint8).ravel().tolist())
  image.save(path)


def _make(root, res="480p", size=(H, W), sequences=SEQUENCES):
  for name, count in sequences.items():
    for kind in ("JPEGImages", "Annotations"):
      (root / kind / res / name).mkdir(parents=True)
    for t in range(count):
      frame = Image.fromarray(_frame(name, t, size))
      frame.save(root / f"JPEGImages/{res}/{name}/{t:05d}.jpg", quality=95)
      path = root / f"Annotations/{res}/{name}/{t:05d}.png"
      _save_numbers(_numbers(name, t, size), path)
  return root


def _save_list(root, name, text):
  path = root / "ImageSets" / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


@pytest.fixture
def davis(tmp_path):
  """Three sequences and the lists of both years."""
  root = _make(tmp_path / "DAVIS")
  _save_list(root, "2017/train.txt", "bear\n")
  _save_list(root, "2017/val.txt", "swan\ncamel\n")
  _save_list(root, "2016/val.txt", "camel\n\n  bear  \n")
  return root


def _open(root, query="", *size):
  return base.open_stream(f"davis:{root}{query and '?'}{query}", *size)


def _refusal(root, query=""):
  with pytest.raises(UserError) as error:
    _open(root, query)
  message = str(error.value)
  assert "\n" not in message
  return message


def _assert_shows(sample, name, t):
  expected = _frame(name, t)
  difference = np.abs(sample.frame.astype(int) - expected)
  assert difference.max() <= 2, (name, t)


def _merged(numbers):
  return np.select([numbers == 0, numbers == 255], [0, IGNORE], 1)


def test_sequence(davis):
  stream = _open(davis, "seq=bear")
  assert stream.spec[:5] == (H, W, 24.0, 3, ("background", "object"))
  assert stream.spec.source_size == (H, W)
  samples = list(stream.read())
  assert [sample.t for sample in samples] == [0, 1, 2]
  for t, sample in enumerate(samples):
    _assert_shows(sample, "bear", t)
    assert sample.truth.dtype == np.uint8
    np.testing.assert_array_equal(sample.truth, _merged(_numbers("bear", t)))


def test_objects_apart(davis):
  stream = _open(davis, "seq=camel&objects=1")
  # Number 2 is not seen, but numbers are what objects are known by.
  names = ("background", "object1", "object2", "object3")
  assert stream.spec.class_names == names
  for t, sample in enumerate(stream.read()):
    np.testing.assert_array_equal(sample.truth, _numbers("camel", t))
  assert len(_open(davis, "seq=bear&objects=1").spec.class_names) == 3
  assert len(_open(davis, "split=val&objects=1").spec.class_names) == 4
  assert _open(davis, "seq=bear&objects=0").spec.class_names[1:] == ("object",)


def test_object_that_comes_late_is_counted(davis):
  late = np.zeros((H, W), np.uint8)
  late[5:9] = 7
  _save_numbers(late, davis / "Annotations/480p/bear/00002.png")
  stream = _open(davis, "seq=bear&objects=1")
  assert stream.spec.class_names[-1] == "object7"
  np.testing.assert_array_equal(list(stream.read())[2].truth, late)


@pytest.mark.parametrize(
  ("query", "order"),
  [
    ("", ("swan", "camel")),
    ("split=val", ("swan", "camel")),
    ("split=val&year=2017", ("swan", "camel")),
    ("year=2016", ("camel", "bear")),
    ("split=train", ("bear",)),
  ],
)
def test_splits_are_played_in_order(davis, query, order):
  stream = _open(davis, query)
  expected = [(name, t) for name in order for t in range(SEQUENCES[name])]
  samples = list(stream.read())
  assert stream.spec.num_frames == len(expected)
  assert [sample.t for sample in samples] == list(range(len(expected)))
  for sample, (name, t) in zip(samples, expected, strict=True):
    _assert_shows(sample, name, t)
    np.testing.assert_array_equal(sample.truth, _merged(_numbers(name, t)))


def test_newest_year_that_has_the_split(davis):
  (davis / "ImageSets/2017/val.txt").unlink()
  _assert_shows(next(_open(davis).read()), "camel", 0)


def test_lists_of_the_first_release(davis):
  shutil.rmtree(davis / "ImageSets")
  lines = [
    f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png"
    for name in ("swan", "bear")
    for t in range(SEQUENCES[name])
  ]
  _save_list(davis, "480p/val.txt", "\n".join(lines))
  stream = _open(davis)
  assert stream.spec.num_frames == 7
  _assert_shows(list(stream.read())[4], "bear", 0)
  assert _open(davis, "year=2016").spec.identity == stream.spec.identity


def test_split_has_the_size_of_its_first_sequence(tmp_path):
  _make(tmp_path, sequences={"bear": 3})
  _make(tmp_path, size=(2 * H, 2 * W), sequences={"swan": 4})
  _save_list(tmp_path, "2017/val.txt", "bear\nswan")
  stream = _open(tmp_path)
  assert (stream.spec.height, stream.spec.width) == (H, W)
  samples = list(stream.read())
  assert {sample.frame.shape for sample in samples} == {(H, W, 3)}
  expected = _merged(_numbers("swan", 0, (2 * H, 2 * W)))[1::2, 1::2]
  np.testing.assert_array_equal(samples[3].truth, expected)


def test_size_asked_for_makes_no_new_numbers(davis):
  stream = _open(davis, "seq=bear&objects=1", 2 * H, 50)
  assert (stream.spec.height, stream.spec.width) == (2 * H, 50)
  for sample in stream.read():
    assert sample.frame.shape == (2 * H, 50, 3)
    assert set(np.unique(sample.truth)) == {0, 1, 2, IGNORE}


@pytest.mark.parametrize("res", ["Full-Resolution", "1080p"])
def test_resolution(davis, res):
  _make(davis, res, size=(2 * H, 2 * W))
  stream = _open(davis, f"seq=bear&res={res}")
  assert (stream.spec.height, stream.spec.width) == (2 * H, 2 * W)
  assert _open(davis, "seq=bear").spec.height == H


def test_grey_annotations_of_the_first_release(davis):
  for t in range(3):
    mask = (_numbers("bear", t) == 2) * np.uint8(255)
    Image.fromarray(mask).save(davis / f"Annotations/480p/bear/{t:05d}.png")
  for query in ("seq=bear", "seq=bear&objects=1"):
    for t, sample in enumerate(_open(davis, query).read()):
      np.testing.assert_array_equal(sample.truth, _numbers("bear", t) == 2)


def test_other_greys_are_no_annotation(davis):
  path = davis / "Annotations/480p/bear/00001.png"
  Image.fromarray(_numbers("bear", 1)).save(path)
  samples = list(_open(davis, "seq=bear").read())
  assert [sample.frame is None for sample in samples] == [False, True, False]
  assert "bear: 00001.png" in samples[1].problem


def test_frames_without_annotations_are_ignored(davis):
  for t in (1, 2):
    (davis / f"Annotations/480p/bear/{t:05d}.png").unlink()
  truths = [sample.truth for sample in _open(davis, "seq=bear").read()]
  np.testing.assert_array_equal(truths[0], _merged(_numbers("bear", 0)))
  for truth in truths[1:]:
    assert truth.shape == (H, W) and (truth == IGNORE).all()
  shutil.rmtree(davis / "Annotations/480p/camel")
  truths = [sample.truth for sample in _open(davis).read()]
  assert [bool((x != IGNORE).any()) for x in truths] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("gone", ["", "480p/bear"])
def test_without_annotations_there_is_no_truth(davis, gone):
  shutil.rmtree(davis / "Annotations" / gone)
  for query in ("seq=bear", "seq=bear&objects=1"):
    stream = _open(davis, query)
    assert stream.spec.class_names == ()
    assert [sample.truth for sample in stream.read()] == [None] * 3


@pytest.mark.parametrize(
  "file",
  ["JPEGImages/480p/bear/0000{}.jpg", "Annotations/480p/bear/0000{}.png"],
)
@pytest.mark.parametrize("t", [0, 1])
def test_broken_file_is_one_broken_sample(davis, file, t):
  path = davis / file.format(t)
  for content in (path.read_bytes()[:150], b"garbage"):
    path.write_bytes(content)
    for query in ("seq=bear", "seq=bear&objects=1"):
      samples = list(_open(davis, query).read())
      assert [sample.frame is None for sample in samples] == [
        i == t for i in range(3)
      ]
      assert path.name in samples[t].problem and "bear" in samples[t].problem


def test_identity(davis):
  identity = _open(davis, "seq=bear").spec.identity
  assert _open(davis, "seq=bear&res=480p").spec.identity == identity
  assert _open(davis, "seq=swan").spec.identity != identity
  assert _open(davis, "seq=bear&objects=1").spec.identity != identity


# What is refused.


@pytest.mark.parametrize(
  ("query", "words"),
  [
    ("seq=bird", ("'bird'", "bear, camel, swan")),
    ("seq=", ("''", "bear")),
    ("seq=../480p/bear", ("bear, camel, swan",)),
    ("seq=bear&split=val", ("seq=", "split=")),
    ("seq=bear&year=2016", ("seq=", "year=")),
    ("seq=bear&res=240p", ("240p", "480p")),
    ("seq=bear&objects=2", ("objects=2",)),
    ("seq=bear&objects=yes", ("objects='yes'",)),
    ("sequence=bear", ("'sequence'", "seq")),
    ("split=test-dev", ("test-dev", "split=train&year=2017", "bear")),
    ("split=../2017/val", ("../2017/val",)),
    ("split=train&year=2016", ("year=2016", "split=val&year=2016")),
    ("year=2018", ("year=2018",)),
  ],
)
def test_options_that_lead_nowhere(davis, query, words):
  refusal = _refusal(davis, query)
  for word in words:
    assert word in refusal


def test_a_dozen_sequences_are_listed(davis):
  for i in range(40):
    (davis / f"JPEGImages/480p/dog{i:02d}").mkdir()
  refusal = _refusal(davis, "seq=bird")
  assert "dog09" in refusal and "dog10" not in refusal
  assert "and 31 more" in refusal


def test_wrong_root(davis):
  assert f"give davis:{davis}" in _refusal(davis.parent, "seq=bear")
  assert "JPEGImages" in _refusal(davis / "JPEGImages", "seq=bear")
  assert "JPEGImages" in _refusal(davis / "nowhere", "seq=bear")


def test_unsupervised_annotations_are_not_taken_silently(davis):
  unsupervised = davis / "Annotations_unsupervised"
  shutil.copytree(davis / "Annotations", unsupervised)
  _open(davis, "seq=bear")  # beside the others they do no harm
  shutil.rmtree(davis / "Annotations")
  assert "Annotations_unsupervised" in _refusal(davis, "seq=bear")


def test_annotations_of_another_resolution(davis):
  (davis / "Annotations/480p").rename(davis / "Annotations/1080p")
  assert "has only 1080p" in _refusal(davis, "seq=bear")


def test_resolution_that_is_not_there(davis):
  (davis / "JPEGImages/480p").rename(davis / "JPEGImages/240p")
  assert "no 480p, Full-Resolution, 1080p" in _refusal(davis, "seq=bear")


def test_annotations_that_match_no_frame(davis):
  for path in (davis / "Annotations/480p/bear").iterdir():
    path.rename(path.with_name(f"bear_{path.name}"))
  refusal = _refusal(davis, "seq=bear")
  assert "bear_00000.png" in refusal and "00000.jpg" in refusal


def test_coloured_annotations(davis):
  path = davis / "Annotations/480p/bear/00000.png"
  Image.fromarray(_frame("bear", 0)).save(path)
  refusal = _refusal(davis, "seq=bear")
  assert str(path) in refusal and "RGB" in refusal


def test_no_object_to_tell_apart(davis):
  for t in range(3):
    path = davis / f"Annotations/480p/bear/{t:05d}.png"
    _save_numbers(np.zeros((H, W), np.uint8), path)
  assert "no annotation shows" in _refusal(davis, "seq=bear&objects=1")
  assert not np.any([s.truth for s in _open(davis, "seq=bear").read()])


def test_sequence_without_frames(davis):
  for path in (davis / "JPEGImages/480p/bear").iterdir():
    path.unlink()
  assert "no .jpg" in _refusal(davis, "seq=bear")
  (davis / "JPEGImages/480p/bear/0.jpg").write_bytes(b"garbage")
  shutil.rmtree(davis / "Annotations")
  assert "none of the 1 frames" in _refusal(davis, "seq=bear")


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"", "names no sequence"),
    (b"\n \n", "names no sequence"),
    (b"bear\nbird\n", "names bird, which"),
    (b"..\n", "names .., which"),
    (b"/etc/passwd\n", "names etc, which"),
    (b"\xff\xfe", "cannot read the list"),
    (b"x" * 500, "x" * 80 + ", which"),
    (b"bear\n" * 300_000, "too large"),
  ],
)
def test_lists_that_make_no_sense(davis, content, words):
  (davis / "ImageSets/2017/val.txt").write_bytes(content)
  assert words in _refusal(davis)


def test_list_that_is_a_pipe_is_not_waited_for(davis):
  (davis / "ImageSets/2017/val.txt").unlink()
  os.mkfifo(davis / "ImageSets/2017/val.txt")
  assert "has no list" in _refusal(davis, "split=val&year=2017")
