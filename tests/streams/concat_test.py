"""Streams one after another: numbers, times, classes, what is refused."""

import json
import sys
import types

import numpy as np
import pytest

from ojd.streams import base
from ojd.types import IGNORE, Sample
from tests.reference import pictures
from tests.reference.pictures import H, W
from tests.reference.refusals import refused

GREYS = {"cat": 50, "dog": 100, "cow": 150}


def _make(root, values, *, classes=(), size=(H, W), fps=25):
  """A folder whose frames show their values, and stripes of its classes."""
  meaning = {"0": "background", "200": "ignore"}
  meaning |= {str(GREYS[name]): name for name in classes}
  mask = np.zeros(size, np.uint8)
  mask[:, -4:] = 200
  for i, name in enumerate(classes):
    mask[10 * i : 10 * i + 5, :-4] = GREYS[name]
  for t, value in enumerate(values):
    pictures.save(pictures.flat(value, *size), root / f"frames/{t}.png")
    if classes:
      pictures.save(mask, root / f"masks/{t}.png")
  text = json.dumps({"fps": fps, "classes": meaning})
  (root / "stream.json").write_text(text)
  return f"folder:{root}"


def _open(*uris):
  return base.open_stream("concat:" + "|".join(uris))


@pytest.fixture
def pets(tmp_path):
  """Cats and dogs; frames without labels, twice as large; dogs and cows."""
  return (
    _make(tmp_path / "a", [1, 2, 3], classes=("cat", "dog")),
    _make(tmp_path / "b", [11, 12], size=(2 * H, 2 * W), fps=10),
    _make(tmp_path / "c", [21, 22], classes=("dog", "cow"), size=(40, 60)),
  )


def _values(samples):
  return [int(sample.frame.mean()) for sample in samples]


def test_frames_follow_each_other(pets):
  stream = _open(*pets)
  names = ("background", "cat", "dog", "cow")
  assert stream.spec[:5] == (H, W, 25.0, 7, names)
  assert stream.spec.source_size == (H, W) and not stream.spec.is_live
  parts = [base.open_stream(uri).spec.identity for uri in pets]
  assert stream.spec.identity == {"kind": "concat", "parts": parts}
  samples = list(stream.read())
  assert [sample.t for sample in samples] == list(range(7))
  assert _values(samples) == [1, 2, 3, 11, 12, 21, 22]
  # Three frames of 1/25 s, two of 1/10 s, then of 1/25 s again.
  seconds = [0, 0.04, 0.08, 0.12, 0.22, 0.32, 0.36]
  assert [sample.seconds for sample in samples] == pytest.approx(seconds)
  # Classes are matched by name.
  truths = np.stack([sample.truth for sample in samples])
  assert truths.dtype == np.uint8 and truths.shape == (7, H, W)
  first = np.zeros((H, W), int)
  first[0:5], first[10:15] = 1, 2  # cat, dog
  first[:, -4:] = IGNORE
  np.testing.assert_array_equal(truths[:3], [first] * 3)
  assert (truths[3:5] == IGNORE).all()
  for truth in truths[5:]:
    # 5 of 40 rows are 4.5 of 36: dogs above cows.
    assert truth[[0, 3, 6, 10, 12, 16], 7].tolist() == [2, 2, 0, 3, 3, 0]
    assert set(np.unique(truth)) == {0, 2, 3, IGNORE}


def test_labels_may_come_late_or_never(tmp_path, pets):
  stream = _open(pets[1], pets[0])
  assert stream.spec.class_names == ("background", "cat", "dog")
  samples = list(stream.read())
  assert (samples[0].truth == IGNORE).all()
  assert (samples[2].truth[0, :10] == 1).all()
  assert {sample.truth.shape for sample in samples} == {(2 * H, 2 * W)}
  plain = _make(tmp_path / "d|e", [2]).replace("|", r"\|")
  stream = _open(pets[1], plain)
  assert stream.spec.class_names == ()
  samples = list(stream.read())
  assert [sample.truth for sample in samples] == [None] * 3
  assert _values(samples) == [11, 12, 2]


@pytest.mark.parametrize(
  ("uris", "words"),
  [
    *((uris, "empty address") for uris in ("", "{}|", "|{}", "{}||{}")),
    ("{}|concat:{}", "another concat:"),
    ("{}|folder:/nowhere", "/nowhere"),
    ("{}|film.xyz", "--stream=film.xyz"),
    ("odd:endless|{}", "odd:endless has no known end"),
    ("odd:live|{}", "odd:live has no known end"),
  ],
)
def test_what_is_no_row_of_streams(odd, pets, uris, words):
  with refused(words):
    _open(uris.format(*pets))


def test_more_classes_than_a_byte_holds(tmp_path):
  uris = [_make(tmp_path / name, [1], classes=("cat",)) for name in "ab"]
  for name in "ab":
    classes = {str(k): f"{name}-{k}" for k in range(1, 200)}
    text = json.dumps({"classes": classes})
    (tmp_path / name / "stream.json").write_text(text)
  with refused("399 classes"):
    _open(*uris)


class _Odd:
  """A stream that knows less of itself than folders do."""

  def __init__(self, num_frames=None, given=3, is_live=False, classes=""):
    self.spec = base.StreamSpec(
      *(H, W, 5.0, num_frames, ("background", "dog", "car")),
      identity={"kind": "odd"},
      default_classes=classes,
      is_live=is_live,
    )
    self.given = given

  def read(self, start=0):
    for t in range(start, self.given):
      yield Sample(t, pictures.flat(100 + t), None, seconds=t + 0.5)


ODD = {
  "endless": _Odd(),
  "live": _Odd(is_live=True),
  "short": _Odd(num_frames=4, given=2),
  "long": _Odd(num_frames=2, given=4),
  "dogs": _Odd(num_frames=3, classes="dog"),
  "cars": _Odd(num_frames=3, classes="thing=car,dog"),
}


@pytest.fixture
def odd(monkeypatch):
  """`odd:NAME` opens one of these."""
  module = types.SimpleNamespace(
    open_stream=lambda address, *_: ODD[address[1]]
  )
  monkeypatch.setitem(sys.modules, "odd_streams", module)
  monkeypatch.setitem(base.SCHEMES, "odd", "odd_streams")


@pytest.mark.parametrize("name", ["endless", "live"])
def test_stream_without_an_end_can_be_the_last(odd, pets, name):
  stream = _open(pets[0], f"odd:{name}")
  assert stream.spec.num_frames is None
  assert stream.spec.is_live == (name == "live")
  for start in range(7):
    samples = list(stream.read(start))
    assert [sample.t for sample in samples] == list(range(6))[start:]
    assert _values(samples) == [1, 2, 3, 100, 101, 102][start:]


def test_time_stamps_and_default_classes_go_on(odd, pets):
  stream = _open("odd:dogs", pets[0], "odd:dogs")
  # Three frames of 1/5 s, then three of 1/25 s.
  expected = [0.5, 1.5, 2.5, 0.6, 0.64, 0.68, 1.22, 2.22, 3.22]
  assert [s.seconds for s in stream.read()] == pytest.approx(expected)
  # Default classes are those on which all agree that have any.
  assert stream.spec.default_classes == "dog"
  for uris in (("odd:cars", "odd:dogs"), pets[:2]):
    assert _open(*uris).spec.default_classes == ""


def test_stream_gives_as_many_frames_as_it_said(odd):
  stream = _open("odd:short", "odd:long", "odd:dogs")
  assert stream.spec.num_frames == 9
  expected = [100, 101, None, None, 100, 101, 100, 101, 102]
  for start in range(10):
    samples = list(stream.read(start))
    assert [sample.t for sample in samples] == list(range(9))[start:]
    for sample, value in zip(samples, expected[start:], strict=True):
      if value is None:
        assert sample.frame is None and "ends before" in sample.problem
      else:
        assert _values([sample]) == [value]
