"""Windows of a stream: which frames, under which numbers and times."""

import json

import numpy as np
import pytest

from ojd.errors import UserError
from ojd.run import build
from ojd.run.config import RunConfig
from ojd.streams import base
from ojd.streams.compose import window
from ojd.types import Sample

H, W = 32, 40


class _Counted:
  """Frames that show their number; live ones come when they come."""

  def __init__(self, num_frames=10, *, broken=(), stamped=False, is_live=False):
    self.spec = base.StreamSpec(
      *(H, W, 20.0, None if is_live else num_frames, ("background", "x")),
      identity={"kind": "counted"},
      default_classes="x",
      source_size=(64, 80),
      is_live=is_live,
    )
    self.num_frames, self.broken, self.stamped = num_frames, broken, stamped
    self.asked = []  # where reading began

  def read(self, start=0):
    self.asked.append(start)
    for t in range(start, self.num_frames):
      seconds = 100 + 0.5 * t if self.stamped else None
      if t in self.broken:
        yield Sample(t, None, None, f"torn {t}", seconds)
      else:
        frame, truth = np.full((H, W, 3), t), np.full((H, W), t % 2)
        yield Sample(
          t, frame.astype(np.uint8), truth.astype(np.uint8), "", seconds
        )


def _shown(samples):
  return [int(sample.frame[0, 0, 0]) for sample in samples]


def test_everything_is_the_stream_itself():
  stream = _Counted()
  assert window(stream) is stream
  assert window(stream, 0, 1) is stream


@pytest.mark.parametrize("every", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("start_frame", [0, 1, 4, 9])
def test_window_is_a_slice(start_frame, every):
  stream = window(_Counted(), start_frame, every)
  expected = list(range(10))[start_frame::every]
  samples = list(stream.read())
  assert _shown(samples) == expected
  assert [sample.t for sample in samples] == list(range(len(expected)))
  assert stream.spec.num_frames == len(expected)
  assert stream.spec.fps == 20 / every
  for sample, t in zip(samples, expected, strict=True):
    assert (sample.truth == t % 2).all()


@pytest.mark.parametrize("start", range(6))
def test_any_frame_can_be_the_first(start):
  source = _Counted()
  stream = window(source, 1, 2)
  samples = list(stream.read(start))
  assert _shown(samples) == [1, 3, 5, 7, 9][start:]
  assert [sample.t for sample in samples] == list(range(5))[start:]
  assert source.asked == [1 + 2 * start]  # nothing before is decoded


def test_times_are_those_of_the_source():
  stamped = window(_Counted(stamped=True), 2, 3).read()
  assert [sample.seconds for sample in stamped] == [101, 102.5, 104]
  unstamped = window(_Counted(), 2, 3).read()
  assert [s.seconds for s in unstamped] == pytest.approx([0.1, 0.25, 0.4])


def test_broken_frame_keeps_its_number():
  samples = list(window(_Counted(broken=(3, 4)), 1, 2).read())
  assert [sample.t for sample in samples] == [0, 1, 2, 3, 4]
  assert samples[1] == (1, None, None, "torn 3", 0.15)


def test_rest_of_what_is_known_stays():
  source = _Counted()
  spec, before = window(source, 1, 2).spec, source.spec
  assert spec.class_names == before.class_names
  assert spec.default_classes == "x" and spec.source_size == (64, 80)
  assert (spec.height, spec.width, spec.is_live) == (H, W, False)


def test_identity_tells_windows_apart():
  source = _Counted()
  identity = window(source, 3, 2).spec.identity
  assert identity == {
    "kind": "window",
    "start_frame": 3,
    "every": 2,
    "of": {"kind": "counted"},
  }
  assert json.loads(json.dumps(identity)) == identity
  assert window(source, 2, 3).spec.identity != identity


def test_live_stream_lets_its_first_frames_pass():
  source = _Counted(is_live=True)
  stream = window(source, 4, 2)
  assert stream.spec.num_frames is None and stream.spec.is_live
  samples = list(stream.read())
  assert source.asked == [0]  # it cannot be told to go ahead
  assert _shown(samples) == [4, 6, 8]
  assert [sample.t for sample in samples] == [0, 1, 2]


@pytest.mark.parametrize(
  ("start_frame", "every", "words"),
  [
    (-1, 1, "--start_frame=-1"),
    (0, 0, "--every=0"),
    (0, -2, "--every=-2"),
    (0, 10**400, "--every=1000"),
    (10, 1, "--start_frame=10: the stream has 10 frames"),
    (11, 2, "--start_frame=11: the stream has 10 frames"),
  ],
)
def test_wrong_numbers_are_refused_by_name(start_frame, every, words):
  with pytest.raises(UserError) as error:
    window(_Counted(), start_frame, every)
  assert words in str(error.value)


def test_end_that_is_not_known_is_not_checked():
  assert list(window(_Counted(is_live=True), 99).read()) == []


def test_run_plays_the_window_that_its_flags_ask_for():
  config = RunConfig(
    stream="synthetic:street?num_frames=9",
    teacher="ground_truth",
    height=H,
    width=W,
    start_frame=2,
    every=3,
  )
  whole = base.open_stream(config.stream, H, W)
  played = list(build.make_job(config).stream.read())
  assert [sample.t for sample in played] == [0, 1, 2]
  for sample, t in zip(played, (2, 5, 8), strict=True):
    expected = next(whole.read(t))
    np.testing.assert_array_equal(sample.frame, expected.frame)
    np.testing.assert_array_equal(sample.truth, expected.truth)
