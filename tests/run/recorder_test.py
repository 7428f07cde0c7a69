"""A wrong answer of a teacher is refused before it is recorded."""

from ojd.run import recorder
from ojd.teachers import base, recorded
from tests.reference import odd_teachers as odd
from tests.reference import scenes
from tests.reference.refusals import refused


def _record(path, wish):
  """Of a stream in whose frame 5 the teacher does as it is told."""
  stream, problems = scenes.Stream(), []
  stream.frames[5, 0, 0] = wish, 0, 0
  name = "tests.reference.odd_teachers:Obedient"
  done = recorder.record(
    *(stream, base.make_teacher(name, base.Context((), 16, 20, {})), path),
    teacher_name=name,
    progress_fn=lambda p: p.problem and problems.append(p.problem),
  )
  return done, problems


def test_answer_that_does_not_fit_is_one_line(tmp_path):
  with refused("--teacher: ", "(3, 3)"):
    _record(tmp_path / "r", odd.WRONG)
  # What came before it stays.
  assert recorded.Recording(tmp_path / "r").frames == list(range(5))


def test_frame_without_an_answer_is_counted(tmp_path):
  done, problems = _record(tmp_path / "r", odd.RAISE)
  assert done.num_failures == 1 and done.num_records == 29
  words = "the teacher failed on frame 5: RuntimeError: out of memory"
  assert problems == [words]


def test_live_stream_is_refused(tmp_path):
  stream = scenes.Stream()
  stream.spec = stream.spec._replace(is_live=True)
  with refused("cannot be recorded"):
    recorder.record(stream, None, tmp_path, teacher_name="any")
