"""J and F beside a plain loop, and of the files that a run leaves."""

import itertools
import json

import numpy as np
import pytest
from scipy import ndimage

from ojd.compare import measures
from ojd.compare.measures import boundary, outline, region
from ojd.errors import UserError
from ojd.formats import class_maps
from ojd.streams import base
from tests.reference import davis_loop, pictures, small_run


def _blob(seed, height=40, width=56, share=0.3):
  rng = np.random.default_rng(seed)
  smooth = ndimage.gaussian_filter(rng.standard_normal((height, width)), 4)
  return smooth > np.quantile(smooth, 1 - share)


@pytest.mark.parametrize("seed", range(4))
def test_measures_and_outlines_are_those_of_the_loop(seed):
  truth = _blob(seed)
  # Much alike, and not at all.
  for answer in (np.roll(truth, (1, 2), (0, 1)), _blob(seed + 100)):
    pair = truth.tolist(), answer.tolist()
    assert region(truth, answer) == davis_loop.region(*pair)
    expected = davis_loop.boundary(*pair)
    assert boundary(truth, answer) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1
  for size in ((1, 1), (1, 7), (9, 1), (5, 6)):
    mask = np.random.default_rng(seed).random(size) < 0.5
    found = list(zip(*np.nonzero(outline(mask)), strict=True))
    assert found == davis_loop.outline(mask.tolist())


def test_boundaries_by_hand():
  truth = np.zeros((100, 120), bool)
  truth[20:60, 30:70] = True
  # 0.008 of the diagonal is 1.25 pixels, rounded up to 2.
  near, far = np.roll(truth, 2, 1), np.roll(truth, 3, 1)
  assert boundary(truth, truth) == 1.0
  assert boundary(truth, near) == 1.0
  assert 0.3 < boundary(truth, far) < 0.8  # upper and lower edge overlap
  assert region(truth, near) == pytest.approx(38 / 42)


def test_empty_masks():
  nothing, all_of_it = np.zeros((8, 9), bool), np.ones((8, 9), bool)
  something = nothing.copy()
  something[2:5, 2:5] = True
  assert region(nothing, nothing) == boundary(nothing, nothing) == 1
  assert region(something, nothing) == 0
  assert boundary(something, nothing) == 0
  assert boundary(nothing, something) == 0
  # The edge of the frame is no boundary.
  assert boundary(all_of_it, nothing) == 1
  assert boundary(all_of_it, something) == 0


def _folder(path):
  """A labelled clip of 64x80, of six frames; the greys of its labels."""
  stream = base.open_stream("synthetic:sports?num_frames=6", 64, 80)
  greys = []
  for sample in stream.read():
    pictures.save(sample.frame, path / f"frames/{sample.t}.png")
    # Some pixels of the edge are nobody's question.
    grey = np.where(sample.truth, 255, 0).astype(np.uint8)
    grey[:2] = 170
    pictures.save(grey, path / f"masks/{sample.t}.png")
    greys.append(grey)
  classes = {"0": "background", "255": "person", "170": "ignore"}
  (path / "stream.json").write_text(json.dumps({"fps": 5, "classes": classes}))
  return np.stack(greys)


def _assert_as_the_loop(found, truths, answers):
  """The means without the first and the last frame."""
  pairs = zip(truths, answers, strict=True)
  pairs = [(truth.tolist(), answer.tolist()) for truth, answer in pairs][1:-1]
  assert found.num_frames == len(pairs) == 3
  for name in ("region", "boundary"):
    expected = np.mean([getattr(davis_loop, name)(*pair) for pair in pairs])
    assert 0 < expected < 1
    assert getattr(found, name) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["png", "video"])
def test_a_run_is_judged_at_the_size_of_its_source(
  tmp_path, small_students, kind
):
  clip, path = tmp_path / "clip", tmp_path / "run"
  greys = _folder(clip)[1:]
  small_run.run(path, stream=f"folder:{clip}", save_masks=kind, start_frame=1)
  answers = [answer for _, answer in class_maps.read_masks(path)]
  answers = (np.stack(answers) == 1) & (greys != 170)
  _assert_as_the_loop(measures.davis(path), greys == 255, answers)


def test_a_drawn_stream_is_judged_at_the_size_of_the_run(
  tmp_path, small_students
):
  small_run.run(tmp_path, num_frames=5, save_masks="png")
  stream = base.open_stream("synthetic:sports?num_frames=40", 48, 64)
  samples = itertools.islice(stream.read(), 5)
  answers = [answer for _, answer in class_maps.read_masks(tmp_path)]
  truths = [sample.truth == 1 for sample in samples]
  _assert_as_the_loop(measures.davis(tmp_path), truths, answers)


def test_what_cannot_be_judged_says_so(tmp_path, small_students):
  small_run.run(tmp_path, num_frames=3)
  with pytest.raises(UserError, match="holds no class maps"):
    measures.davis(tmp_path)
  path = tmp_path / "config.json"
  about = json.loads(path.read_text())
  path.write_text(json.dumps(about | {"class_names": ["background", "a", "b"]}))
  with pytest.raises(UserError, match="of one class"):
    measures.davis(tmp_path)
