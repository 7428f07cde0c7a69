"""Folders of images: what masks mean, what is refused, what is survived."""

import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from ojd.errors import UserError
from ojd.streams import base
from ojd.types import IGNORE

H, W = 36, 48
CLASSES = {"0": "background", "255": "moving", "170": "ignore"}
GREYS = np.array([0, 170, 255], np.uint8)


def _frame(t, height=H, width=W):
  """Noise, which no two frames share and no coder makes small."""
  rng = np.random.default_rng(t)
  return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def _mask(t, height=H, width=W, greys=GREYS):
  return np.random.default_rng(100 + t).choice(greys, (height, width))


def _save(array, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def _describe(root, classes=None, **other):
  classes = CLASSES if classes is None else classes
  description = {"fps": 12.5, "classes": classes} | other
  (root / "stream.json").write_text(json.dumps(description))


@pytest.fixture
def labelled(tmp_path):
  """Four frames with masks and a description."""
  for t in range(4):
    _save(_frame(t), tmp_path / "frames" / f"f{t}.png")
    _save(_mask(t), tmp_path / "masks" / f"m{t}.png")
  _describe(tmp_path)
  return tmp_path


@pytest.fixture
def unlabelled(tmp_path):
  """Three frames and nothing else."""
  for t in range(3):
    _save(_frame(t), tmp_path / "frames" / f"f{t}.png")
  return tmp_path


def _open(root, height=None, width=None):
  return base.open_stream(f"folder:{root}", height, width)


def _refusal(root):
  """The one line that says why a folder is refused."""
  with pytest.raises(UserError) as error:
    _open(root)
  assert "\n" not in str(error.value)
  return str(error.value)


def _labels_of(greys):
  """CLASSES applied by hand."""
  return np.select([greys == 0, greys == 255], [0, 1], IGNORE)


# What a good folder gives.


def test_labelled_folder(labelled):
  stream = _open(labelled)
  assert stream.spec[:5] == (H, W, 12.5, 4, ("background", "moving"))
  samples = list(stream.read())
  assert [sample.t for sample in samples] == [0, 1, 2, 3]
  for t, sample in enumerate(samples):
    np.testing.assert_array_equal(sample.frame, _frame(t))
    np.testing.assert_array_equal(sample.truth, _labels_of(_mask(t)))
    assert sample.frame.dtype == sample.truth.dtype == np.uint8
    assert sample.problem == ""


def test_frames_alone_need_no_description(unlabelled):
  stream = _open(unlabelled)
  assert stream.spec[:5] == (H, W, 25.0, 3, ())
  samples = list(stream.read())
  assert [sample.truth for sample in samples] == [None] * 3
  np.testing.assert_array_equal(samples[2].frame, _frame(2))


def test_frames_alone_may_say_their_rate(unlabelled):
  (unlabelled / "stream.json").write_text('{"fps": 30}')
  spec = _open(unlabelled).spec
  assert (spec.fps, spec.class_names) == (30.0, ())


def test_palette_masks_are_read_as_grey(labelled):
  greys = np.array([255, 0, 170, 9], np.uint8)  # by palette index
  for t in range(4):
    indices = _mask(t, greys=np.arange(4, dtype=np.uint8))
    image = Image.frombytes("P", (W, H), indices.tobytes())
    image.putpalette(np.repeat(greys, 3).tolist())
    image.save(labelled / "masks" / f"m{t}.png")
  for t, sample in enumerate(_open(labelled).read()):
    indices = _mask(t, greys=np.arange(4, dtype=np.uint8))
    np.testing.assert_array_equal(sample.truth, _labels_of(greys[indices]))


def test_classes_in_the_order_of_their_grey_values(labelled):
  greys = np.array([0, 9, 40, 100, 200, 77], np.uint8)
  mask = _mask(0, greys=greys)
  for t in range(4):
    _save(mask, labelled / "masks" / f"m{t}.png")
  _describe(
    labelled,
    {"100": "car", "200": "dog", "9": "person", "40": "background", "0": "dog"},
  )
  stream = _open(labelled)
  assert stream.spec.class_names == ("background", "dog", "person", "car")
  # Two greys may share a class; 77 was not described.
  by_grey = {0: 1, 9: 2, 40: 0, 100: 3, 200: 1, 77: IGNORE}
  expected = np.vectorize(by_grey.get)(mask)
  np.testing.assert_array_equal(next(stream.read()).truth, expected)


def test_description_need_not_name_the_background(labelled):
  _describe(labelled, {"255": "moving"})
  assert _open(labelled).spec.class_names == ("background", "moving")


def test_frames_and_masks_are_paired_in_sorted_order(tmp_path):
  names = ["b", "a", "d", "c"]  # written in this order, read in another
  for t, name in enumerate(names):
    _save(_frame(t), tmp_path / "frames" / f"{name}.png")
    _save(_mask(t), tmp_path / "masks" / f"mask_{name}.png")
  _describe(tmp_path)
  for t, sample in zip([1, 0, 3, 2], _open(tmp_path).read(), strict=True):
    np.testing.assert_array_equal(sample.frame, _frame(t))
    np.testing.assert_array_equal(sample.truth, _labels_of(_mask(t)))


def test_files_that_are_no_images_are_passed_over(labelled):
  (labelled / "frames" / "README.txt").write_text("hello")
  (labelled / "masks" / "Thumbs.db").write_bytes(b"\0")
  (labelled / "frames" / "._f0.png").write_bytes(b"resource fork")
  assert _open(labelled).spec.num_frames == 4


def test_grey_and_transparent_frames_become_rgb(tmp_path):
  grey = _frame(0)[..., 0]
  Image.fromarray(grey).save(_folder(tmp_path) / "0.png")
  Image.fromarray(_frame(1)).convert("RGBA").save(_folder(tmp_path) / "1.png")
  first, second = _open(tmp_path).read()
  np.testing.assert_array_equal(first.frame, np.stack([grey] * 3, -1))
  np.testing.assert_array_equal(second.frame, _frame(1))


def test_pipe_is_refused_and_not_waited_for(unlabelled):
  os.mkfifo(unlabelled / "frames" / "f3.png")
  assert "f3.png" in _refusal(unlabelled)


def _folder(root):
  (root / "frames").mkdir(exist_ok=True)
  return root / "frames"


# Resizing.


@pytest.mark.parametrize("size", [(32, 32), (72, 96), (50, 41)])
def test_resized_masks_hold_no_new_values(labelled, size):
  stream = _open(labelled, *size)
  assert (stream.spec.height, stream.spec.width) == size
  for sample in stream.read():
    assert sample.frame.shape == (*size, 3)
    assert sample.truth.shape == size
    assert set(np.unique(sample.truth)) == {0, 1, IGNORE}


def test_doubled_mask_repeats_its_pixels(labelled):
  sample = next(_open(labelled, 2 * H, 2 * W).read())
  expected = np.kron(_labels_of(_mask(0)), np.ones((2, 2), int))
  np.testing.assert_array_equal(sample.truth, expected)


def test_resized_frame_keeps_its_picture(tmp_path):
  y, x = np.mgrid[:64, :96]
  frame = np.stack([y * 3, x * 2, y + x], axis=-1).astype(np.uint8)
  _save(frame, tmp_path / "frames" / "0.png")
  ours = next(_open(tmp_path, 32, 48).read()).frame.astype(int)
  mean = frame.reshape(32, 2, 48, 2, 3).mean((1, 3))
  assert np.abs(ours - mean).max() <= 2


def test_frames_too_small_for_the_student_need_a_size(tmp_path):
  _save(_frame(0, 16, 20), tmp_path / "frames" / "0.png")
  assert "--height" in _refusal(tmp_path)
  assert next(_open(tmp_path, 32, 40).read()).frame.shape == (32, 40, 3)


# What is refused when it is opened.


def test_missing_folder(tmp_path):
  assert str(tmp_path / "nowhere") in _refusal(tmp_path / "nowhere")
  assert str(tmp_path / "frames") in _refusal(tmp_path)


def test_no_frames(tmp_path):
  _folder(tmp_path)
  assert "holds no images" in _refusal(tmp_path)


def test_unequal_counts(labelled):
  (labelled / "masks" / "m3.png").unlink()
  assert "4 frames and 3 masks" in _refusal(labelled)


def test_frames_of_unequal_sizes(labelled):
  _save(_frame(2, H, W + 1), labelled / "frames" / "f2.png")
  assert str(labelled / "frames" / "f2.png") in _refusal(labelled)


def test_masks_of_unequal_sizes(labelled):
  _save(_mask(2, H + 1, W), labelled / "masks" / "m2.png")
  assert str(labelled / "masks" / "m2.png") in _refusal(labelled)


def test_masks_of_another_size_than_frames(labelled):
  for t in range(4):
    _save(_mask(t, 18, 24), labelled / "masks" / f"m{t}.png")
  refusal = _refusal(labelled)
  assert "(24, 18)" in refusal and "(48, 36)" in refusal


def test_masks_without_a_description(labelled):
  (labelled / "stream.json").unlink()
  refusal = _refusal(labelled)
  assert str(labelled / "stream.json") in refusal and "classes" in refusal


@pytest.mark.parametrize(
  "text",
  [
    "",
    "{",
    "[]",
    "3",
    '"x"',
    "null",
    '{"fps": 25}',
    '{"classes": null}',
    '{"classes": ["a", "b"]}',
    '{"classes": {"red": "car"}}',
    '{"classes": {"1.5": "car"}}',
    "{'classes': {}}",
    "\x00\x01",
    "\udcff\udcfe\0\udc80",
  ],
)
def test_description_that_cannot_be_read(labelled, text):
  path = labelled / "stream.json"
  path.write_bytes(text.encode(errors="surrogateescape"))
  assert str(path) in _refusal(labelled)


@pytest.mark.parametrize(
  "fps",
  ["0", "-1", "NaN", "Infinity", "1e9", '"fast"', "null", "[25]", "9" * 400],
)
def test_frame_rate_that_makes_no_sense(labelled, fps):
  text = f'{{"fps": {fps}, "classes": {json.dumps(CLASSES)}}}'
  (labelled / "stream.json").write_text(text)
  assert str(labelled / "stream.json") in _refusal(labelled)


@pytest.mark.parametrize(
  ("classes", "culprit"),
  [
    ({}, "names no class"),
    ({"0": "background", "9": "ignore"}, "names no class"),
    ({"256": "car"}, "256"),
    ({"-1": "car"}, "-1"),
  ],
)
def test_classes_that_make_no_sense(labelled, classes, culprit):
  _describe(labelled, classes)
  assert culprit in _refusal(labelled)


def test_a_byte_holds_255_classes(labelled):
  _describe(labelled, {str(i): f"c{i}" for i in range(300)})
  assert "301 classes" in _refusal(labelled)
  classes = {str(i): f"c{i}" for i in range(1, 255)}
  _describe(labelled, classes | {"0": "background", "255": "ignore"})
  assert len(_open(labelled).spec.class_names) == 255


@pytest.mark.parametrize("file", ["frames/f2.png", "masks/m2.png"])
@pytest.mark.parametrize(
  "content", [b"", b"garbage" * 99, b"\x89PNG\r\n\x1a\n"]
)
def test_file_that_is_no_image(labelled, file, content):
  (labelled / file).write_bytes(content)
  assert str(labelled / file) in _refusal(labelled)


def test_path_with_a_question_mark(labelled):
  odd = labelled.rename(labelled.with_name("what?x=1"))
  assert _open(odd).spec.class_names


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\ud800b"])
def test_class_without_a_printable_name(labelled, name):
  text = json.dumps({"classes": {"0": "background", "255": name}})
  (labelled / "stream.json").write_text(text)
  with pytest.raises(UserError, match="no name of a class"):
    _open(labelled)


# What is survived while it is read.


def _truncate(path, share=0.5):
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])


@pytest.mark.parametrize("broken", ["frames/f2.png", "masks/m2.png"])
def test_truncated_file_is_one_broken_sample(labelled, broken):
  _truncate(labelled / broken)
  stream = _open(labelled)
  assert stream.spec.num_frames == 4
  for t, sample in enumerate(stream.read()):
    assert sample.t == t
    if t == 2:
      assert sample.frame is None and sample.truth is None
      assert pathlib.Path(broken).name in sample.problem
    else:
      np.testing.assert_array_equal(sample.frame, _frame(t))
      np.testing.assert_array_equal(sample.truth, _labels_of(_mask(t)))
      assert sample.problem == ""


def test_file_that_goes_away_is_one_broken_sample(labelled):
  stream = _open(labelled)
  (labelled / "frames" / "f1.png").unlink()
  broken = [sample.frame is None for sample in stream.read()]
  assert broken == [False, True, False, False]


# Identity.


def _replace_frame(root):
  _save(_frame(9)[::2].repeat(2, axis=0), root / "frames" / "f1.png")


def _replace_mask(root):
  _save(np.zeros((H, W), np.uint8), root / "masks" / "m1.png")


def _add_frame(root):
  _save(_frame(9), root / "frames" / "f9.png")
  _save(_mask(9), root / "masks" / "m9.png")


def _rename_frame(root):
  (root / "frames" / "f0.png").rename(root / "frames" / "g0.png")


def _flip_one_bit_of_a_frame(root):
  path = root / "frames" / "f0.bmp"
  data = bytearray(path.read_bytes())
  data[-4] ^= 1
  path.write_bytes(data)


def _change_what_masks_mean(root):
  _describe(root, CLASSES | {"170": "background"})


@pytest.mark.parametrize(
  "change",
  [
    _replace_frame,
    _replace_mask,
    _add_frame,
    _rename_frame,
    _flip_one_bit_of_a_frame,
    _change_what_masks_mean,
  ],
)
def test_identity_changes_with_the_content(labelled, change):
  os.remove(labelled / "frames" / "f0.png")
  _save(_frame(0), labelled / "frames" / "f0.bmp")
  if change is _rename_frame:
    (labelled / "frames" / "f0.bmp").rename(labelled / "frames" / "f0.png")
  before = _open(labelled).spec.identity
  change(labelled)
  assert _open(labelled).spec.identity != before


# The real clips.

CAMVID = (
  "sky building pole road pavement tree sign fence car pedestrian bicyclist"
)
CLIPS = {
  "camvid_0016E5_15hz": (360, 480, 15, 101, CAMVID),
  "davis_car-roundabout": (480, 854, 24, 75, "object"),
  "davis_car-shadow": (480, 854, 24, 40, "object"),
  "davis_dance-twirl": (480, 854, 24, 90, "object"),
  "sbi_HighwayI_first200": (240, 320, 25, 200, "moving"),
}


def _clip(name):
  beside = pathlib.Path(__file__).parents[3] / "shared" / "data"
  path = pathlib.Path(os.environ.get("OJD_DATA", beside)) / name
  if not path.is_dir():
    pytest.skip(f"no clip in {path}; set OJD_DATA to the folder of the clips")
  return path


@pytest.mark.parametrize("name", CLIPS)
def test_real_clip(name):
  stream = _open(_clip(name))
  *numbers, classes = CLIPS[name]
  names = ("background", *classes.split())
  assert stream.spec[:5] == (*numbers, names)
  for t in (0, stream.spec.num_frames - 1):
    sample = next(stream.read(t))
    assert sample.frame.shape == (*numbers[:2], 3), sample.problem
    seen = set(np.unique(sample.truth)) - {IGNORE}
    assert seen and max(seen) < len(names)
    assert sample.frame.std() > 10


def test_real_palette_mask():
  clip = _clip("sbi_HighwayI_first200")
  t = 100
  path = sorted((clip / "masks").iterdir())[t]
  with Image.open(path) as image:
    assert image.mode == "P"
    palette = np.array(image.getpalette()).reshape(-1, 3)
    colours = palette[np.asarray(image)]
  truth = next(_open(clip).read(t)).truth
  np.testing.assert_array_equal(truth == 1, (colours == 255).all(-1))
  np.testing.assert_array_equal(truth == 0, (colours == 0).all(-1))
