"""Windows of a stream: which frames, under which numbers and times."""

import json

import pytest

from ojd.streams import base
from ojd.streams.compose import window
from ojd.types import Sample
from tests.reference.pictures import flat
from tests.reference.refusals import refused

H, W = 32, 40


class _Counted:
  """Frames that show their number; live ones come when they come."""

  def __init__(self, *, stamped=False, is_live=False):
    self.spec = base.StreamSpec(
      *(H, W, 20.0, None if is_live else 10, ("background", "x")),
      identity={"kind": "counted"},
      default_classes="x",
      source_size=(64, 80),
      is_live=is_live,
    )
    self.stamped = stamped
    self.asked = []  # where reading began

  def read(self, start=0):
    """Frame 3 is broken."""
    self.asked.append(start)
    for t in range(start, 10):
      seconds = 100 + 0.5 * t if self.stamped else None
      if t == 3:
        yield Sample(t, None, None, "torn", seconds)
      else:
        yield Sample(t, flat(t, H, W), flat(t % 2, H, W)[..., 0], "", seconds)


def _shown(samples):
  return [int(s.frame[0, 0, 0]) if s.frame is not None else 3 for s in samples]


@pytest.mark.parametrize(
  ("start_frame", "every"),
  [(0, 2), (0, 30), (1, 1), (1, 2), (4, 3), (9, 1), (9, 7)],
)
def test_window_is_a_slice(start_frame, every):
  source = _Counted()
  assert window(source) is window(source, 0, 1) is source
  stream = window(source, start_frame, every)
  window_of = {"kind": "window", "start_frame": start_frame, "every": every}
  identity = stream.spec.identity
  assert identity == window_of | {"of": {"kind": "counted"}}
  assert json.loads(json.dumps(identity)) == identity
  expected = list(range(10))[start_frame::every]
  assert stream.spec == source.spec._replace(
    fps=20 / every, num_frames=len(expected), identity=identity
  )
  stamped = window(_Counted(stamped=True), start_frame, every).read()
  assert [s.seconds for s in stamped] == [100 + 0.5 * t for t in expected]
  for start in range(len(expected) + 2):
    samples = list(stream.read(start))
    assert _shown(samples) == expected[start:]
    assert [s.t for s in samples] == list(range(len(expected)))[start:]
    for sample, t in zip(samples, expected[start:], strict=True):
      assert sample.seconds == pytest.approx(t / 20)
      if t == 3:
        assert sample[:4] == (sample.t, None, None, "torn")
      else:
        assert (sample.truth == t % 2).all()
    # Nothing before is decoded.
    assert source.asked[-1] == start_frame + start * every


def test_live_stream_lets_its_first_frames_pass():
  source = _Counted(is_live=True)
  stream = window(source, 4, 2)
  assert stream.spec.num_frames is None and stream.spec.is_live
  samples = list(stream.read())
  assert source.asked == [0]  # it cannot be told to go ahead
  assert _shown(samples) == [4, 6, 8]
  assert [sample.t for sample in samples] == [0, 1, 2]
  # An end that is not known is not checked.
  assert list(window(source, 99).read()) == []


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
  with refused(words):
    window(_Counted(), start_frame, every)
