"""A wrong answer of a teacher is refused before it is recorded."""

import pytest

from ojd.errors import UserError
from ojd.run import recorder
from ojd.teachers import base, recorded
from tests.reference import odd_teachers as odd
from tests.reference import scenes

OBEDIENT = "tests.reference.odd_teachers:Obedient"


def _record(stream, path):
  teacher = base.make_teacher(OBEDIENT, base.Context((), 16, 20, {}))
  problems = []
  done = recorder.record(
    stream,
    teacher,
    path,
    teacher_name=OBEDIENT,
    progress_fn=lambda p: p.problem and problems.append(p.problem),
  )
  return done, problems


def test_answer_that_does_not_fit_is_one_line(tmp_path):
  stream = scenes.Stream()
  stream.frames[5, 0, 0] = odd.WRONG, 0, 0
  with pytest.raises(UserError, match=r"--teacher: .*\(3, 3\)") as error:
    _record(stream, tmp_path / "r")
  assert "\n" not in str(error.value)
  # What came before it stays.
  assert recorded.Recording(tmp_path / "r").frames == list(range(5))


def test_frame_without_an_answer_is_counted(tmp_path):
  stream = scenes.Stream()
  stream.frames[5, 0, 0] = odd.RAISE, 0, 0
  done, problems = _record(stream, tmp_path / "r")
  assert done.num_failures == 1 and done.num_records == 29
  assert problems == [
    "the teacher failed on frame 5: RuntimeError: out of memory"
  ]


def test_live_stream_is_refused(tmp_path):
  stream = scenes.Stream()
  stream.spec = stream.spec._replace(is_live=True)
  with pytest.raises(UserError, match="could not be replayed"):
    recorder.record(stream, None, tmp_path, teacher_name="any")
