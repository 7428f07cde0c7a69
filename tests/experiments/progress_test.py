"""What a log says of a run, with a clock of the test's own."""

from experiments import progress
from ojd.run.stats import Progress


def _at(num_frames, total=100, problem=""):
  return Progress(num_frames, total, 10.0, 16, 3, 9, 0.5, problem)


def test_log_speaks_every_five_seconds_and_at_the_end():
  now, lines = [0.0], []
  log = progress.Log(progress.RUN, clock=lambda: now[0], write=lines.append)
  for num_frames, seconds in [(1, 50.0), (2, 51.0), (50, 57.0), (100, 58.0)]:
    now[0] = seconds
    log(_at(num_frames))
  assert len(lines) == 3
  assert lines[0].startswith("frame 1/100") and "ETA" not in lines[0]
  # 49 frames in 7 s since the first: 50 more take 7.1 s.
  assert lines[1].endswith("ETA 7 s")
  assert lines[2].startswith("frame 100/100")
  for word in ("10.0 fps", "stride 16", "9 updates", "mIoU 0.500"):
    assert word in lines[1]


def test_log_tells_of_problems_at_once():
  lines = []
  log = progress.Log(progress.RUN, clock=lambda: 0.0, write=lines.append)
  log(_at(3, problem="frame 2 skipped: torn"))
  assert lines == ["warning: frame 2 skipped: torn"]


def test_stream_without_an_end_has_no_eta():
  now, lines = [0.0], []
  log = progress.Log(progress.RUN, clock=lambda: now[0], write=lines.append)
  for num_frames in (1, 40):
    now[0] += 6.0
    log(_at(num_frames, total=None))
  assert lines[1].startswith("frame 40  ") and "ETA" not in lines[1]
