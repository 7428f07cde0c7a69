"""Cityscapes: its snippets, its labels, what is refused."""

import numpy as np
import pytest

from ojd.streams import base
from ojd.types import IGNORE
from tests.reference import pictures
from tests.reference.refusals import refused

H, W = 32, 64
# City, seq, first frame and number of frames.
SNIPPETS = (
  ("frankfurt", "000000", 275, 30),
  ("frankfurt", "000000", 557, 30),
  ("frankfurt", "000001", 2, 4),  # cut short, before its labels
  ("lindau", "000000", 0, 30),
)
# What the benchmark evaluates: number in the labels, by number in training.
TRAIN_IDS = [
  *(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
]


def _numbers(seed=0):
  """All numbers of labels from 0 to 33, and 255, the plate of a car."""
  rng = np.random.default_rng(seed)
  return rng.choice([*range(34), 255], (H, W)).astype(np.uint8)


def _make(root, split="val", snippets=SNIPPETS):
  """Frames whose greys count them all; labels of each snippet's frame 19."""
  index = 0
  for city, seq, first, count in snippets:
    labels = root / "gtFine" / split / city
    for i in range(count):
      name = f"{city}_{seq}_{first + i:06d}"
      path = f"leftImg8bit_sequence/{split}/{city}/{name}_leftImg8bit.png"
      pictures.save(pictures.flat(2 * index + 5, H, W), root / path)
      if i == 19:
        pictures.save(_numbers(index), labels / f"{name}_gtFine_labelIds.png")
        # Beside them lie colours and outlines.
        (labels / f"{name}_gtFine_color.png").write_bytes(b"")
      index += 1
  return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return _make(tmp_path_factory.mktemp("cityscapes"))


def _open(root, query="", *size):
  return base.open_stream(f"cityscapes:{root}{query and '?'}{query}", *size)


@pytest.mark.parametrize(
  ("query", "indices"),
  [
    ("", range(94)),
    ("split=val", range(94)),
    ("city=frankfurt", range(64)),
    ("city=frankfurt&seq=000000", range(60)),
    ("city=lindau", range(64, 94)),
    ("city=frankfurt&seq=000000&frame=560", range(30, 60)),
    ("seq=000001", range(60, 64)),
  ],
)
def test_snippets_are_played_in_order(root, query, indices):
  stream = _open(root, query)
  assert stream.spec[:4] == (H, W, 17.0, len(indices))
  names = stream.spec.class_names
  if query == "seq=000001":  # without labels
    assert names == ()
  else:
    assert len(names) == 20 and names[:2] == ("background", "road")
    assert names[2:3] + names[-1:] == ("sidewalk", "bicycle")
  samples = list(stream.read())
  assert [sample.t for sample in samples] == list(range(len(indices)))
  for sample, index in zip(samples, indices, strict=True):
    assert (sample.frame == 2 * index + 5).all()
    if index in (19, 49, 83):
      expected = np.full((H, W), IGNORE)
      for label, number in enumerate(TRAIN_IDS, 1):
        expected[_numbers(index) == number] = label
      np.testing.assert_array_equal(sample.truth, expected)
      assert sample.truth.dtype == np.uint8
    else:
      assert sample.truth is None


def test_long_runs_are_cut_and_broken_files_told_frame_by_frame(tmp_path):
  _make(tmp_path, snippets=(("ulm", "000000", 0, 70),))
  label = next(tmp_path.glob("gtFine/val/ulm/*labelIds.png"))
  pictures.save(pictures.flat(0, H, W), label)
  folder = tmp_path / "leftImg8bit_sequence/val/ulm"
  (folder / "notes.png").write_bytes(b"")  # of another name
  # Of a long run of frames the snippet around one is played.
  stream = _open(tmp_path, "frame=31")
  assert stream.spec.num_frames == 30
  assert next(stream.read()).frame[0, 0, 0] == 2 * 30 + 5
  samples = list(_open(tmp_path).read())
  assert [x.t for x in samples if x.frame is None] == [19]
  assert "labels are numbers, not colours of RGB" in samples[19].problem


@pytest.mark.parametrize(
  ("query", "words"),
  [
    ("split=test", "has no split 'test'; it has val"),
    ("city=ulm", "has no city 'ulm'; it has frankfurt, lindau"),
    ("seq=7", "there is no seq '7'; there are 000000, 000001"),
    (
      "seq=000000&frame=9999",
      "there is no frame 9999; there are 275 to 304, 557 to 586, 0 to 29",
    ),
    ("frame=x", "frame='x' is not int"),
    ("year=2016", "cityscapes: has no option 'year'"),
    ("city=..", "has no city '..'"),
  ],
)
def test_wrong_requests_are_refused(root, query, words):
  with refused(words):
    _open(root, query)


def test_folders_of_other_things_are_refused(tmp_path):
  city = tmp_path / "leftImg8bit_sequence/val/ulm"
  for path, words in (
    (tmp_path / "other", "there is no folder"),
    (tmp_path / "leftImg8bit", "which is no video"),
    (city, "holds no *_leftImg8bit.png files"),
  ):
    path.mkdir(parents=True)
    with refused(words):
      _open(tmp_path)
  (city / "ulm_0_1_leftImg8bit.png").write_bytes(b"no image")
  with refused("none of the 1 frames"):
    _open(tmp_path)
