"""A recorded stream at its own rate, by a clock of the test's own."""

from ojd.fleet.pacing import Paced
from tests.reference import scenes


def test_frames_come_no_sooner_than_from_a_camera():
  now, slept, stream = [100.0], [], scenes.Stream(num_frames=6)

  def sleep(seconds):
    slept.append(round(seconds, 6))
    now[0] += seconds

  paced = Paced(stream, lambda: now[0], sleep)
  assert paced.spec is stream.spec
  seen = []
  for sample in paced.read(2):
    seen.append((sample.t, round(now[0] - 100.0, 6)))
    now[0] += 0.1 if sample.t == 3 else 0.01  # once it takes too long
  # 25 frames a second; what is late is not waited for, and nothing is dropped.
  assert seen == [(2, 0.0), (3, 0.04), (4, 0.14), (5, 0.15)]
  assert slept == [0.0, 0.03, 0.0, 0.0]
