"""What a log says of a run, with a clock of the test's own."""

from experiments import progress
from ojd.run.stats import Progress


def _at(num_frames, total=100, problem=""):
  return Progress(num_frames, total, 10.0, 16, 3, 9, 0.5, problem)


def _told(*progress_at):
  """What is written, of (progress, seconds)."""
  now, lines = [0.0], []
  log = progress.Log(progress.RUN, clock=lambda: now[0], write=lines.append)
  for made, now[0] in progress_at:
    log(made)
  return lines


def test_log_speaks_every_five_seconds_and_at_the_end():
  moments = (1, 50.0), (2, 51.0), (50, 57.0), (100, 58.0)
  first, middle, last = _told(*((_at(n), seconds) for n, seconds in moments))
  assert first.startswith("frame 1/100") and "ETA" not in first
  # 49 frames in 7 s since the first: 50 more take 7.1 s.
  assert middle.endswith("ETA 7 s") and last.startswith("frame 100/100")
  for word in ("10.0 fps", "stride 16", "9 updates", "mIoU 0.500"):
    assert word in middle


def test_log_tells_of_problems_at_once():
  lines = _told((_at(3, problem="frame 2 skipped: torn"), 0.0))
  assert lines == ["warning: frame 2 skipped: torn"]


def test_stream_without_an_end_has_no_eta():
  _, line = _told((_at(1, total=None), 6.0), (_at(40, total=None), 12.0))
  assert line.startswith("frame 40  ") and "ETA" not in line
