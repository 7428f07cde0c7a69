"""Folders of images: what masks mean, what is refused, what is survived."""

import json
import os
import shutil

import numpy as np
import pytest

from ojd.streams import base
from ojd.types import IGNORE
from tests.reference import pictures
from tests.reference.pictures import H, W, noise
from tests.reference.refusals import refused

CLASSES = {"0": "background", "255": "moving", "170": "ignore"}
GREYS = np.array([0, 170, 255], np.uint8)


def _mask(t, height=H, width=W, greys=GREYS):
  return np.random.default_rng(100 + t).choice(greys, (height, width))


def _describe(root, classes=CLASSES, **other):
  description = {"fps": 12.5, "classes": classes} | other
  (root / "stream.json").write_text(json.dumps(description))


@pytest.fixture
def unlabelled(tmp_path):
  """Three frames and nothing else, not written in their order."""
  for t in (1, 2, 0):
    pictures.save(noise(t), tmp_path / f"frames/f{t}.png")
  return tmp_path


@pytest.fixture
def labelled(unlabelled):
  """Three frames with masks and a description."""
  for t in range(3):
    pictures.save(_mask(t), unlabelled / f"masks/m{t}.png")
  _describe(unlabelled)
  return unlabelled


def _open(root, *size):
  return base.open_stream(f"folder:{root}", *size)


def _check_refusal(root, *words):
  with refused(*words):
    _open(root)


def _labels_of(greys):
  """CLASSES applied by hand."""
  return np.select([greys == 0, greys == 255], [0, 1], IGNORE)


# What a good folder gives.


def test_labelled_folder(labelled):
  # Files that are no images are passed over.
  (labelled / "frames/README.txt").write_text("hello")
  (labelled / "masks/Thumbs.db").write_bytes(b"\0")
  (labelled / "frames/._f0.png").write_bytes(b"resource fork")
  root = labelled.rename(labelled.with_name("what?x=1"))
  stream = _open(root)
  assert stream.spec[:5] == (H, W, 12.5, 3, ("background", "moving"))
  samples = list(stream.read())
  assert [sample.t for sample in samples] == [0, 1, 2]
  for t, sample in enumerate(samples):
    np.testing.assert_array_equal(sample.frame, noise(t))
    np.testing.assert_array_equal(sample.truth, _labels_of(_mask(t)))
    assert sample.frame.dtype == sample.truth.dtype == np.uint8
    assert sample.problem == ""


def test_frames_alone_need_no_description(unlabelled):
  stream = _open(unlabelled)
  assert stream.spec[:5] == (H, W, 25.0, 3, ())
  frames, truths = zip(*(sample[1:3] for sample in stream.read()), strict=True)
  np.testing.assert_array_equal(frames, [*map(noise, range(3))])
  assert truths == (None,) * 3
  (unlabelled / "stream.json").write_text('{"fps": 30}')
  assert _open(unlabelled).spec[:5] == (H, W, 30.0, 3, ())


def test_palette_masks_are_read_as_grey(labelled):
  greys = np.array([255, 0, 170, 9], np.uint8)  # by palette index
  indices = _mask(0, greys=np.arange(4, dtype=np.uint8))
  mask = pictures.palette(indices, greys[:, None].repeat(3, 1))
  for t in range(3):
    pictures.save(mask, labelled / f"masks/m{t}.png")
  truth = next(_open(labelled).read()).truth
  np.testing.assert_array_equal(truth, _labels_of(greys[indices]))


def test_classes_in_the_order_of_their_grey_values(labelled):
  # Two greys may share a class; 77 is not described.
  by_grey = {0: 1, 9: 2, 40: 0, 100: 3, 200: 1, 77: IGNORE}
  mask = _mask(0, greys=np.array([*by_grey], np.uint8))
  pictures.save(mask, labelled / "masks/m0.png")
  _describe(
    labelled,
    {"100": "car", "200": "dog", "9": "person", "40": "background", "0": "dog"},
  )
  stream = _open(labelled)
  assert stream.spec.class_names == ("background", "dog", "person", "car")
  expected = np.vectorize(by_grey.get)(mask)
  np.testing.assert_array_equal(next(stream.read()).truth, expected)
  # The background need not be named.
  _describe(labelled, {"255": "moving"})
  assert _open(labelled).spec.class_names == ("background", "moving")


# Resizing.


def test_doubled_mask_repeats_its_pixels(labelled):
  sample = next(_open(labelled, 2 * H, 2 * W).read())
  expected = np.kron(_labels_of(_mask(0)), np.ones((2, 2), int))
  np.testing.assert_array_equal(sample.truth, expected)


def test_resized_frame_keeps_its_picture(tmp_path):
  y, x = np.mgrid[:64, :96]
  frame = np.stack([y * 3, x * 2, y + x], axis=-1).astype(np.uint8)
  pictures.save(frame, tmp_path / "frames/0.png")
  ours = next(_open(tmp_path, 32, 48).read()).frame.astype(int)
  mean = frame.reshape(32, 2, 48, 2, 3).mean((1, 3))
  assert np.abs(ours - mean).max() <= 2


def test_frames_too_small_for_the_student_need_a_size(tmp_path):
  pictures.save(noise(0, 16, 20), tmp_path / "frames/0.png")
  _check_refusal(tmp_path, "--height")
  assert next(_open(tmp_path, 32, 40).read()).frame.shape == (32, 40, 3)


# What is refused when it is opened.


def _put_a_pipe(root):
  (root / "frames/f2.png").unlink()
  os.mkfifo(root / "frames/f2.png")


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda root: root.rename(root.with_name("gone")), ["{root}"]),
    (lambda root: shutil.rmtree(root / "frames"), ["{root}/frames"]),
    (
      lambda root: [path.unlink() for path in root.glob("frames/*")],
      ["holds no images"],
    ),
    (lambda root: (root / "masks/m2.png").unlink(), ["3 frames and 2 masks"]),
    (_put_a_pipe, ["{root}/frames/f2.png"]),  # which is not waited for
    (
      lambda root: pictures.save(noise(0, H, W + 1), root / "frames/f2.png"),
      ["{root}/frames/f2.png"],
    ),
    (
      lambda root: pictures.save(_mask(0, H + 1), root / "masks/m2.png"),
      ["{root}/masks/m2.png"],
    ),
    (
      lambda root: [
        pictures.save(_mask(0, 18, 24), path) for path in root.glob("masks/*")
      ],
      ["(24, 18)", "(48, 36)"],
    ),
    (
      lambda root: (root / "stream.json").unlink(),
      ["{root}/stream.json", "classes"],
    ),
  ],
)
def test_folders_of_other_things(labelled, change, words):
  change(labelled)
  _check_refusal(labelled, *(word.format(root=labelled) for word in words))


@pytest.mark.parametrize(
  "text",
  [
    *("", "{", "[]", "3", '"x"', "null", '{"fps": 25}', '{"classes": null}'),
    *('{"classes": ["a", "b"]}', '{"classes": {"red": "car"}}'),
    *('{"classes": {"1.5": "car"}}', "{'classes': {}}"),
    *("\x00\x01", "\udcff\udcfe\0\udc80"),
    *(
      f'{{"fps": {fps}, "classes": {json.dumps(CLASSES)}}}'
      for fps in (
        *("0", "-1", "NaN", "Infinity", "1e9", '"fast"', "null", "[25]"),
        "9" * 400,
      )
    ),
  ],
)
def test_description_that_makes_no_sense(labelled, text):
  path = labelled / "stream.json"
  path.write_bytes(text.encode(errors="surrogateescape"))
  _check_refusal(labelled, str(path))


@pytest.mark.parametrize(
  ("classes", "culprit"),
  [
    ({}, "names no class"),
    ({"0": "background", "9": "ignore"}, "names no class"),
    *(({grey: "car"}, grey) for grey in ("256", "-1")),
    ({str(i): f"c{i}" for i in range(300)}, "301 classes"),
    *(
      ({"0": "background", "255": name}, "no name of a class")
      for name in ("", " ", "a\nb")
    ),
    ({"0": "background", "255": "a\ud800b"}, "not a description"),
  ],
)
def test_classes_that_make_no_sense(labelled, classes, culprit):
  _describe(labelled, classes)
  _check_refusal(labelled, culprit)
  # As many as a byte holds do.
  classes = {str(i): f"c{i}" for i in range(1, 255)}
  _describe(labelled, classes | {"0": "background", "255": "ignore"})
  assert len(_open(labelled).spec.class_names) == 255


@pytest.mark.parametrize("file", ["frames/f1.png", "masks/m1.png"])
def test_file_that_is_no_image_or_goes_away(labelled, file):
  stream, path = _open(labelled), labelled / file
  for content in (b"", b"garbage" * 99, b"\x89PNG\r\n\x1a\n"):
    path.write_bytes(content)
    _check_refusal(labelled, str(path))
  path.unlink()
  assert [s.frame is None for s in stream.read()] == [False, True, False]


def test_identity_changes_with_the_content(labelled):
  bitmap = labelled / "frames/f0.bmp"
  (labelled / "frames/f0.png").unlink()
  pictures.save(noise(0), bitmap)
  content = bytearray(bitmap.read_bytes())
  content[-4] ^= 1
  seen = [_open(labelled).spec.identity]
  for change in (
    lambda: pictures.save(noise(9), labelled / "frames/f1.png"),
    lambda: pictures.save(_mask(9), labelled / "masks/m1.png"),
    lambda: bitmap.write_bytes(content),
    lambda: bitmap.rename(labelled / "frames/e0.bmp"),
    lambda: _describe(labelled, CLASSES | {"170": "background"}),
  ):
    change()
    seen.append(_open(labelled).spec.identity)
  assert all(seen.count(identity) == 1 for identity in seen)
