"""DAVIS: its layouts, its numbers of objects, its splits, what is refused."""

import os
import shutil

import numpy as np
import pytest

from ojd.streams import base
from ojd.types import IGNORE
from tests.reference import pictures
from tests.reference.pictures import H, W
from tests.reference.refusals import refused

SEQUENCES = {"bear": 3, "camel": 2, "swan": 4}  # number of frames
# What looks white is the background.
COLOURS = np.random.default_rng(0).integers(1, 256, (256, 3))
COLOURS[:2] = [[255] * 3, [0] * 3]


def _grey(name, t):
  return 20 + 50 * sorted(SEQUENCES).index(name) + 10 * t


def _numbers(name, t, scale=1):
  """Objects 1 and 2, a rim of void, and for the camel an object 3."""
  numbers = np.zeros((H, W), np.uint8)
  numbers[4 + t : 12, 4:20] = 1
  numbers[14:30, 20 : 40 - t] = 3 if name == "camel" else 2
  numbers[-2:] = 255
  return numbers.repeat(scale, 0).repeat(scale, 1)


def _save_numbers(numbers, path):
  pictures.save(pictures.palette(numbers, COLOURS), path)


def _make(root, res="480p", scale=1, names=tuple(SEQUENCES)):
  for name in names:
    for t in range(SEQUENCES[name]):
      frame = pictures.flat(_grey(name, t), scale * H, scale * W)
      pictures.save(frame, root / f"JPEGImages/{res}/{name}/{t:05d}.jpg")
      path = root / f"Annotations/{res}/{name}/{t:05d}.png"
      _save_numbers(_numbers(name, t, scale), path)
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


@pytest.fixture
def bear(davis):
  """The annotations of one sequence."""
  return davis / "Annotations/480p/bear"


def _open(root, query="", *size):
  return base.open_stream(f"davis:{root}{query and '?'}{query}", *size)


def _check_refusal(root, query, *words):
  with refused(*words):
    _open(root, query)


def _shown(samples):
  """The sequence and the frame in it that each sample shows."""
  greys = {_grey(n, t): (n, t) for n in SEQUENCES for t in range(SEQUENCES[n])}
  frames = [sample.frame for sample in samples]
  assert all(np.ptp(frame) < 3 for frame in frames)
  return [greys[round(frame.mean(), -1)] for frame in frames]


def _truths(root, query):
  return [sample.truth for sample in _open(root, query).read()]


def _merged(numbers):
  return np.select([numbers == 0, numbers == 255], [0, IGNORE], 1)


@pytest.mark.parametrize(
  ("query", "order"),
  [
    ("seq=bear", ["bear"]),
    ("seq=bear&objects=0", ["bear"]),
    ("", ["swan", "camel"]),
    ("split=val", ["swan", "camel"]),
    ("split=val&year=2017", ["swan", "camel"]),
    ("year=2016", ["camel", "bear"]),
    ("split=train", ["bear"]),
  ],
)
def test_sequences_are_played_in_order(davis, query, order):
  stream = _open(davis, query)
  expected = [(name, t) for name in order for t in range(SEQUENCES[name])]
  names = ("background", "object")
  assert stream.spec[:5] == (H, W, 24.0, len(expected), names)
  assert stream.spec.source_size == (H, W)
  samples = list(stream.read())
  assert [sample.t for sample in samples] == list(range(len(expected)))
  assert _shown(samples) == expected
  for sample, which in zip(samples, expected, strict=True):
    np.testing.assert_array_equal(sample.truth, _merged(_numbers(*which)))
    assert sample.truth.dtype == np.uint8


def test_objects_apart(davis, bear):
  stream = _open(davis, "seq=camel&objects=1")
  # Number 2 is not seen, but numbers are what objects are known by.
  names = ("background", "object1", "object2", "object3")
  assert stream.spec.class_names == names
  for t, sample in enumerate(stream.read()):
    np.testing.assert_array_equal(sample.truth, _numbers("camel", t))
  assert _open(davis, "seq=bear&objects=1").spec.class_names == names[:3]
  assert _open(davis, "split=val&objects=1").spec.class_names == names
  late = np.eye(H, W, dtype=np.uint8) * np.uint8(7)
  _save_numbers(late, bear / "00002.png")
  stream = _open(davis, "seq=bear&objects=1")
  assert stream.spec.class_names[-1] == "object7"
  np.testing.assert_array_equal(next(stream.read(2)).truth, late)


def test_lists_of_other_releases(davis):
  (davis / "ImageSets/2017/val.txt").unlink()  # there is another year
  assert _shown([next(_open(davis).read())]) == [("camel", 0)]
  shutil.rmtree(davis / "ImageSets")
  lines = [
    f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png"
    for name in ("swan", "bear")
    for t in range(SEQUENCES[name])
  ]
  _save_list(davis, "480p/val.txt", "\n".join(lines))
  stream = _open(davis)
  shown = [(name, t) for name in ("swan", "bear") for t in range(4)][:7]
  assert _shown(stream.read()) == shown
  assert _open(davis, "year=2016").spec.identity == stream.spec.identity
  # A split has the size of its first sequence.
  _make(davis, scale=2, names=["bear"])
  *_, last = stream = list(_open(davis).read())
  assert {sample.frame.shape for sample in stream} == {(H, W, 3)}
  np.testing.assert_array_equal(last.truth, _merged(_numbers("bear", 2)))


def test_resolution_and_identity(davis):
  for scale, res in enumerate(("Full-Resolution", "1080p"), 2):
    _make(davis, res, scale)
    spec = _open(davis, f"seq=bear&res={res}").spec
    assert (spec.height, spec.width) == (scale * H, scale * W)
    assert _open(davis, "seq=bear").spec.height == H
  queries = ("", "&res=480p", "&res=1080p", "&objects=1")
  one, same, *others = (
    _open(davis, f"seq=bear{query}").spec.identity for query in queries
  )
  assert one == same and one not in others


def test_grey_annotations_of_the_first_release(davis, bear):
  for t in range(3):
    mask = (_numbers("bear", t) == 2) * np.uint8(255)
    pictures.save(mask, bear / f"{t:05d}.png")
  for query in ("seq=bear", "seq=bear&objects=1"):
    for t, truth in enumerate(_truths(davis, query)):
      np.testing.assert_array_equal(truth, _numbers("bear", t) == 2)
  # Other greys are no annotation.
  pictures.save(_numbers("bear", 1), bear / "00001.png")
  samples = list(_open(davis, "seq=bear").read())
  assert [sample.frame is None for sample in samples] == [False, True, False]
  assert "bear: 00001.png" in samples[1].problem


def test_frames_without_annotations_are_ignored(davis, bear):
  for t in (1, 2):
    (bear / f"{t:05d}.png").unlink()
  first, *others = _truths(davis, "seq=bear")
  np.testing.assert_array_equal(first, _merged(_numbers("bear", 0)))
  np.testing.assert_array_equal(others, np.full((2, H, W), IGNORE))
  shutil.rmtree(davis / "Annotations/480p/camel")
  asked = [bool((x != IGNORE).any()) for x in _truths(davis, "")]
  assert asked == [True] * 4 + [False] * 2


@pytest.mark.parametrize("gone", ["", "480p/bear"])
def test_without_annotations_there_is_no_truth(davis, gone):
  shutil.rmtree(davis / "Annotations" / gone)
  for query in ("seq=bear", "seq=bear&objects=1"):
    assert _open(davis, query).spec.class_names == ()
    assert _truths(davis, query) == [None] * 3


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
  _check_refusal(davis, query, *words)


def test_places_that_are_not_there(davis):
  _check_refusal(davis.parent, "seq=bear", f"give davis:{davis}")
  for root in (davis / "JPEGImages", davis / "nowhere"):
    _check_refusal(root, "seq=bear", "JPEGImages")
  for i in range(40):
    (davis / f"JPEGImages/480p/dog{i:02d}").mkdir()
  _check_refusal(davis, "seq=bird", "dog08, dog09 and 31 more")
  (davis / "Annotations/480p").rename(davis / "Annotations/1080p")
  _check_refusal(davis, "seq=bear", "has only 1080p")
  (davis / "JPEGImages/480p").rename(davis / "JPEGImages/240p")
  _check_refusal(davis, "seq=bear", "no 480p, Full-Resolution, 1080p")


def test_unsupervised_annotations_are_not_taken_silently(davis):
  unsupervised = davis / "Annotations_unsupervised"
  shutil.copytree(davis / "Annotations", unsupervised)
  _open(davis, "seq=bear")  # beside the others they do no harm
  shutil.rmtree(davis / "Annotations")
  _check_refusal(davis, "seq=bear", "Annotations_unsupervised")


def test_annotations_that_fit_no_frame(davis, bear):
  for t in range(3):
    _save_numbers(np.zeros((H, W), np.uint8), bear / f"{t:05d}.png")
  _check_refusal(davis, "seq=bear&objects=1", "no annotation shows")
  assert not np.any(_truths(davis, "seq=bear"))
  pictures.save(pictures.flat(9), bear / "00000.png")
  _check_refusal(davis, "seq=bear", str(bear / "00000.png"), "RGB")
  for path in bear.iterdir():
    path.rename(path.with_name(f"bear_{path.name}"))
  _check_refusal(davis, "seq=bear", "bear_00000.png", "00000.jpg")


def test_sequence_without_frames(davis):
  frames = davis / "JPEGImages/480p/bear"
  shutil.rmtree(frames)
  frames.mkdir()
  _check_refusal(davis, "seq=bear", "no .jpg")
  (frames / "0.jpg").write_bytes(b"garbage")
  shutil.rmtree(davis / "Annotations")
  _check_refusal(davis, "seq=bear", "none of the 1 frames")


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
  path = davis / "ImageSets/2017/val.txt"
  path.write_bytes(content)
  _check_refusal(davis, "", words)
  path.unlink()
  os.mkfifo(path)  # which is not waited for
  _check_refusal(davis, "split=val&year=2017", "has no list")
