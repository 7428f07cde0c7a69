"""Cityscapes: its snippets, its labels, what is refused."""

import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.streams import base, cityscapes
from ojd.types import IGNORE

H, W = 32, 64
# City, seq, first frame and number of frames.
SNIPPETS = (
  ("frankfurt", "000000", 275, 30),
  ("frankfurt", "000000", 557, 30),
  ("frankfurt", "000001", 2, 4),  # cut short, before its labels
  ("lindau", "000000", 0, 30),
)
# What the benchmark evaluates, by number in the labels and in training.
TRAIN_IDS = dict(
  zip(
    (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
    range(19),
    strict=True,
  )
)


def _frame(index):
  return np.full((H, W, 3), 2 * index + 5, np.uint8)


def _numbers(seed=0):
  """All numbers of labels from 0 to 33, and 255, the plate of a car."""
  rng = np.random.default_rng(seed)
  return rng.choice([*range(34), 255], (H, W)).astype(np.uint8)


def _make(root, split="val", snippets=SNIPPETS):
  index = 0
  for city, seq, first, count in snippets:
    folder = root / "leftImg8bit_sequence" / split / city
    labels = root / "gtFine" / split / city
    for path in (folder, labels):
      path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
      name = f"{city}_{seq}_{first + i:06d}"
      image = Image.fromarray(_frame(index))
      image.save(folder / f"{name}_leftImg8bit.png")
      if i == 19:
        image = Image.fromarray(_numbers(index))
        image.save(labels / f"{name}_gtFine_labelIds.png")
        # Beside them lie colours and outlines.
        (labels / f"{name}_gtFine_color.png").write_bytes(b"")
      index += 1
  return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return _make(tmp_path_factory.mktemp("cityscapes"))


def _open(root, query="", *size):
  return base.open_stream(f"cityscapes:{root}{query and '?'}{query}", *size)


def _refusal(root, query=""):
  with pytest.raises(UserError) as error:
    _open(root, query)
  message = str(error.value)
  assert "\n" not in message
  return message


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
  samples = list(stream.read())
  assert [sample.t for sample in samples] == list(range(len(indices)))
  for sample, index in zip(samples, indices, strict=True):
    np.testing.assert_array_equal(sample.frame, _frame(index))
    has_labels = index in (19, 49, 83)
    assert (sample.truth is not None) == has_labels
    if has_labels:
      expected = np.full((H, W), IGNORE)
      for number, train_id in TRAIN_IDS.items():
        expected[_numbers(index) == number] = train_id + 1
      np.testing.assert_array_equal(sample.truth, expected)
      assert sample.truth.dtype == np.uint8
  assert next(stream.read(3)).t == 3


def test_classes_are_those_of_the_benchmark(root):
  names = _open(root).spec.class_names
  assert len(names) == 20 and names[0] == "background"
  assert names[1:4] == ("road", "sidewalk", "building")
  assert names[-2:] == ("motorcycle", "bicycle")
  assert list(cityscapes.CLASSES) == list(TRAIN_IDS)
  # Without labels there is nothing to be told apart.
  assert _open(root, "seq=000001").spec.class_names == ()


def test_frames_and_labels_take_another_size(root):
  stream = _open(root, "city=lindau", 64, 128)
  assert stream.spec.source_size == (H, W)
  sample = next(stream.read(19))
  assert sample.frame.shape == (64, 128, 3)
  own = next(_open(root, "city=lindau").read(19)).truth
  np.testing.assert_array_equal(sample.truth[::2, ::2], own)


def test_long_runs_of_frames_are_cut_into_snippets(tmp_path):
  _make(tmp_path, "train", (("ulm", "000000", 0, 70),))
  stream = _open(tmp_path, "split=train&frame=31")
  assert stream.spec.num_frames == 30
  assert next(stream.read()).frame[0, 0, 0] == 2 * 30 + 5


def test_broken_files_are_told_frame_by_frame(tmp_path):
  _make(tmp_path, snippets=(("ulm", "000000", 0, 21),))
  folder = tmp_path / "leftImg8bit_sequence/val/ulm"
  (folder / "ulm_000000_000003_leftImg8bit.png").write_bytes(b"no image")
  label = next(tmp_path.glob("gtFine/val/ulm/*labelIds.png"))
  Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(label)
  (folder / "notes.png").write_bytes(b"")  # of another name
  samples = list(_open(tmp_path).read())
  assert [x.t for x in samples if x.frame is None] == [3, 19]
  assert samples[3].problem.startswith("ulm_000000_000003_leftImg8bit.png")
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
  assert words in _refusal(root, query)


def test_folders_of_other_things_are_refused(tmp_path):
  assert "there is no folder" in _refusal(tmp_path)
  (tmp_path / "leftImg8bit").mkdir()
  assert "which is no video" in _refusal(tmp_path)
  (tmp_path / "leftImg8bit_sequence/val/ulm").mkdir(parents=True)
  assert "holds no *_leftImg8bit.png files" in _refusal(tmp_path)
  path = tmp_path / "leftImg8bit_sequence/val/ulm/ulm_0_1_leftImg8bit.png"
  path.write_bytes(b"no image")
  assert "none of the 1 frames" in _refusal(tmp_path)
