"""Steadiness of clips made by hand, and beside a plain loop."""

import numpy as np
import pytest
from scipy import ndimage

from ojd import temporal
from ojd.compare import measures
from ojd.compare.measures import Answer
from ojd.types import IGNORE
from tests.reference import temporal_loop

H, W, SIDE, STEP = 60, 90, 16, 3


def _texture(height, width, seed):
  rng = np.random.default_rng(seed)
  noise = rng.normal(0, 1, (height, width, 3))
  smooth = ndimage.gaussian_filter(noise, (2, 2, 0))
  return (128 + 60 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def _square(t):
  """A light square that goes right over a dark ground, and where it is."""
  frame, classes = _texture(H, W, 0) // 3, np.zeros((H, W), np.uint8)
  place = np.s_[20 : 20 + SIDE, 10 + STEP * t : 10 + STEP * t + SIDE]
  frame[place], classes[place] = 170 + _texture(SIDE, SIDE, 1) // 3, 1
  return frame, classes


def _true_flow(frame, previous):
  """Of the square one step to the left, of all else nothing."""
  t = next(t for t in range(9) if np.array_equal(_square(t)[0], frame))
  assert np.array_equal(_square(t - 1)[0], previous)
  flow = np.zeros((H, W, 2), np.float32)
  flow[_square(t)[1] == 1] = -STEP, 0
  return flow


def _clip(answer_of):
  """Six answers, each as `answer_of(t)`."""
  squares = map(_square, range(6))
  return [Answer(t, x, answer_of(t), y) for t, (x, y) in enumerate(squares)]


def test_consistency_of_the_square():
  clip = _clip(lambda t: _square(t)[1])
  found = measures.steadiness_of(clip, 2, _true_flow)
  assert found == (1.0, 0.0, 1.0, 0.0)
  # By the flow that is computed, too.
  assert measures.steadiness_of(clip, 2).consistency > 0.9
  # Every other answer is where the square was before.
  clip = _clip(lambda t: _square(t - t % 2)[1])
  found = measures.steadiness_of(clip, 2, _true_flow)
  assert found.consistency < 0.9 * found.truth_consistency
  # Who says nothing is steady.
  clip = _clip(lambda t: np.zeros((H, W), np.uint8))
  assert measures.steadiness_of(clip, 3)[:2] == (1.0, 0.0)


def test_flicker_of_a_known_share_is_found_exactly():
  still = _texture(H, W, 2)
  noise = np.random.default_rng(3).integers(-5, 6, (8, H, W, 3))
  frames = (still.clip(5, 250) + noise).astype(np.uint8)
  maps = np.zeros((8, H, W), np.uint8)
  maps[1::2, :6] = 1  # a tenth of the frame, on and off
  clip = [Answer(t, frames[t], maps[t], None) for t in range(8)]
  found = measures.steadiness_of(clip, 2)
  assert found.flicker == 0.1 and found.consistency == 0.0
  assert found.truth_consistency is None and found.truth_flicker is None
  # A frame that is missing leaves no pair around it.
  apart = measures.steadiness_of([x for x in clip if x.t != 3], 2)
  assert apart.flicker == 0.1
  assert measures.steadiness_of(clip[::2], 2) == (None,) * 4
  # Where something happens nothing is asked.
  frames[::2] = 255 - frames[::2]
  assert measures.steadiness_of(clip, 2).flicker is None


@pytest.mark.parametrize("seed", range(4))
def test_both_are_those_of_the_loop(seed):
  rng = np.random.default_rng(seed)
  num_frames, size = 3, (13, 17)
  frames = np.stack([_texture(*size, seed)] * num_frames).astype(int)
  frames += rng.integers(-7, 8, frames.shape)
  frames[1:, 3:8, 4:9] += 30
  frames = frames.clip(0, 255).astype(np.uint8)
  maps = rng.integers(0, 3, (num_frames, *size)).astype(np.uint8)
  maps[rng.random(maps.shape) < 0.1] = IGNORE
  flows = rng.normal(0, 2, (num_frames, *size, 2)).astype(np.float32)
  turns = iter(flows[1:])
  clip = [Answer(t, frames[t], maps[t], None) for t in range(num_frames)]
  found = measures.steadiness_of(clip, 4, lambda *_: next(turns))
  expected = temporal_loop.measures(frames.astype(int), flows, maps, 4)
  assert found[:2] == pytest.approx(expected)
  assert 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_flows_beyond_all_bounds_are_beyond_the_frame():
  frame = np.zeros((5, 6, 3), np.uint8)
  flow = np.zeros((5, 6, 2), np.float32)
  flow[0, 0], flow[1, 1], flow[2, 2] = (np.inf, 0), (0, -1e30), (1.4, -0.4)
  seen = temporal.motion(frame, frame, lambda *_: flow)
  assert not seen.is_followed[0, 0] and not seen.is_followed[1, 1]
  assert seen.is_followed.sum() == 28
  assert (seen.rows[2, 2], seen.columns[2, 2]) == (2, 3)
