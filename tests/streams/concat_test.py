"""Streams one after another: numbers, times, classes, what is refused."""

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.run import build
from ojd.run.config import RunConfig
from ojd.streams import base
from ojd.types import IGNORE, Sample

H, W = 36, 48
GREYS = {"cat": 50, "dog": 100, "cow": 150}


def _make(root, values, *, classes=(), size=(H, W), fps=25, ignored=False):
  """A folder whose frames show their values, and stripes of its classes."""
  (root / "frames").mkdir(parents=True)
  meaning = {"0": "background", "200": "ignore"}
  meaning |= {str(GREYS[name]): name for name in classes}
  mask = np.zeros(size, np.uint8)
  for i, name in enumerate(classes):
    mask[10 * i : 10 * i + 5] = GREYS[name]
  if ignored:
    mask[:, -4:] = 200
  for t, value in enumerate(values):
    frame = np.full((*size, 3), value, np.uint8)
    Image.fromarray(frame).save(root / "frames" / f"{t}.png")
    if classes:
      (root / "masks").mkdir(exist_ok=True)
      Image.fromarray(mask).save(root / "masks" / f"{t}.png")
  text = json.dumps({"fps": fps, "classes": meaning})
  (root / "stream.json").write_text(text)
  return f"folder:{root}"


def _open(*uris, size=(None, None)):
  return base.open_stream("concat:" + "|".join(uris), *size)


def _refusal(*uris):
  with pytest.raises(UserError) as error:
    _open(*uris)
  assert "\n" not in str(error.value)
  return str(error.value)


@pytest.fixture
def pets(tmp_path):
  """Cats and dogs; frames without labels, twice as large; dogs and cows."""
  return (
    _make(tmp_path / "a", [1, 2, 3], classes=("cat", "dog"), ignored=True),
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
  samples = list(stream.read())
  assert [sample.t for sample in samples] == list(range(7))
  assert _values(samples) == [1, 2, 3, 11, 12, 21, 22]
  assert {sample.frame.shape for sample in samples} == {(H, W, 3)}


def test_truths_are_matched_by_name(pets):
  samples = list(_open(*pets).read())
  first = np.zeros((H, W), int)
  first[0:5], first[10:15] = 1, 2  # cat, dog
  first[:, -4:] = IGNORE
  for sample in samples[:3]:
    np.testing.assert_array_equal(sample.truth, first)
  for sample in samples[3:5]:
    assert sample.truth.shape == (H, W) and (sample.truth == IGNORE).all()
  for sample in samples[5:]:
    # 5 of 40 rows are 4.5 of 36: dogs above cows.
    assert sample.truth.dtype == np.uint8
    assert sample.truth[[0, 3, 6, 10, 12, 16], 7].tolist() == [2, 2, 0, 3, 3, 0]
    assert set(np.unique(sample.truth)) == {0, 2, 3}


def test_frames_without_labels_may_come_first(pets):
  stream = _open(pets[1], pets[0])
  assert stream.spec.class_names == ("background", "cat", "dog")
  samples = list(stream.read())
  assert (samples[0].truth == IGNORE).all()
  assert (samples[2].truth[0, :10] == 1).all()
  assert {sample.truth.shape for sample in samples} == {(2 * H, 2 * W)}


def test_without_any_labels_there_is_no_truth(tmp_path):
  stream = _open(_make(tmp_path / "a", [1]), _make(tmp_path / "b", [2]))
  assert stream.spec.class_names == ()
  assert [sample.truth for sample in stream.read()] == [None, None]


def test_times_go_on(pets):
  seconds = [sample.seconds for sample in _open(*pets).read()]
  # Three frames of 1/25 s, two of 1/10 s, then of 1/25 s again.
  expected = [0, 0.04, 0.08, 0.12, 0.22, 0.32, 0.36]
  assert seconds == pytest.approx(expected)


@pytest.mark.parametrize("start", range(9))
def test_any_frame_can_be_the_first(pets, start):
  stream = _open(*pets)
  tail, sought = list(stream.read())[start:], list(stream.read(start))
  assert [s.t for s in sought] == [s.t for s in tail]
  for a, b in zip(sought, tail, strict=True):
    np.testing.assert_array_equal(a.frame, b.frame)
    np.testing.assert_array_equal(a.truth, b.truth)
    assert a.seconds == b.seconds


def test_size_asked_for(pets):
  stream = _open(*pets, size=(32, 40))
  assert (stream.spec.height, stream.spec.width) == (32, 40)
  for sample in stream.read():
    assert sample.frame.shape == (32, 40, 3)
    assert sample.truth.shape == (32, 40)


def test_kinds_may_differ(pets):
  sports = "synthetic:sports?num_frames=2&fps=50"
  stream = _open(pets[0], sports)
  assert stream.spec.class_names == ("background", "cat", "dog", "person")
  assert stream.spec.num_frames == 5
  alone = base.open_stream(sports, H, W)
  for sample, expected in zip(stream.read(3), alone.read(), strict=True):
    np.testing.assert_array_equal(sample.frame, expected.frame)
    np.testing.assert_array_equal(sample.truth == 3, expected.truth == 1)
  assert sample.seconds == pytest.approx(3 / 25 + 1 / 50)


def test_bar_in_a_name(tmp_path):
  a = _make(tmp_path / "a|b", [1])
  b = _make(tmp_path / "c?x=1", [2])
  assert _values(_open(a.replace("|", r"\|"), b).read()) == [1, 2]


def test_broken_frame_keeps_its_number_and_time(pets, tmp_path):
  path = tmp_path / "b" / "frames" / "0.png"
  path.write_bytes(path.read_bytes()[:60])
  samples = list(_open(*pets).read())
  assert [sample.frame is None for sample in samples] == [
    t == 3 for t in range(7)
  ]
  assert samples[3].t == 3 and samples[3].truth is None
  assert "0.png" in samples[3].problem
  assert samples[3].seconds == pytest.approx(0.12)


def test_identity_is_that_of_the_parts(pets):
  identity = _open(*pets).spec.identity
  parts = [base.open_stream(uri).spec.identity for uri in pets]
  assert identity == {"kind": "concat", "parts": parts}
  assert json.loads(json.dumps(identity)) == identity
  assert _open(*pets[::-1]).spec.identity != identity


def test_run_learns_from_all_of_them(pets):
  config = RunConfig(
    stream="concat:" + "|".join(pets), teacher="ground_truth", start_frame=4
  )
  made = build.make_job(config)
  assert made.groups.names == ("background", "cat", "dog", "cow")
  assert _values(made.stream.read()) == [12, 21, 22]


# What is refused.


def test_nothing_between_bars(pets):
  for uris in (("",), (pets[0], ""), ("", pets[0]), (pets[0], "", pets[1])):
    assert "empty address" in _refusal(*uris)


def test_nested(pets):
  assert "another concat:" in _refusal(pets[0], f"concat:{pets[1]}")


def test_part_that_cannot_be_opened(pets, tmp_path):
  assert "nowhere" in _refusal(pets[0], f"folder:{tmp_path / 'nowhere'}")
  assert "--stream=film.xyz" in _refusal(pets[0], "film.xyz")


def test_more_classes_than_a_byte_holds(tmp_path):
  uris = []
  for i in range(2):
    uris.append(_make(tmp_path / str(i), [1], classes=("cat",)))
    classes = {str(k): f"{i}-{k}" for k in range(1, 200)}
    text = json.dumps({"classes": classes})
    (tmp_path / str(i) / "stream.json").write_text(text)
  assert "399 classes" in _refusal(*uris)


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
      frame = np.full((H, W, 3), 100 + t, np.uint8)
      yield Sample(t, frame, None, seconds=t + 0.5)


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
def test_stream_without_an_end_can_only_be_the_last(odd, pets, name):
  stream = _open(pets[0], f"odd:{name}")
  assert stream.spec.num_frames is None
  assert stream.spec.is_live == (name == "live")
  for start in range(7):
    samples = list(stream.read(start))
    assert [sample.t for sample in samples] == list(range(6))[start:]
    assert _values(samples) == [1, 2, 3, 100, 101, 102][start:]
  refusal = _refusal(f"odd:{name}", pets[0])
  assert f"odd:{name} has no known end" in refusal


def test_time_stamps_go_on(odd, pets):
  samples = _open("odd:dogs", pets[0], "odd:dogs").read()
  # Three frames of 1/5 s, then three of 1/25 s.
  assert [sample.seconds for sample in samples] == pytest.approx(
    [0.5, 1.5, 2.5, 0.6, 0.64, 0.68, 1.22, 2.22, 3.22]
  )


@pytest.mark.parametrize("start", range(8))
def test_stream_gives_as_many_frames_as_it_said(odd, start):
  stream = _open("odd:short", "odd:long", "odd:dogs")
  assert stream.spec.num_frames == 9
  samples = list(stream.read(start))
  assert [sample.t for sample in samples] == list(range(9))[start:]
  expected = [100, 101, None, None, 100, 101, 100, 101, 102]
  for sample, value in zip(samples, expected[start:], strict=True):
    if value is None:
      assert sample.frame is None and "ends before" in sample.problem
    else:
      assert _values([sample]) == [value]


def test_default_classes_where_all_agree(odd, pets):
  def default(*uris):
    return _open(*uris).spec.default_classes

  assert default("odd:dogs", "odd:dogs") == "dog"
  assert default(pets[0], "odd:dogs", pets[1]) == "dog"
  assert default("odd:cars", "odd:dogs") == ""
  assert default(pets[0], pets[1]) == ""
