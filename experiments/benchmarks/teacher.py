"""Teachers.

student_vs_mask_rcnn, student_vs_mask_rcnn_tiny
    the student's forward pass over the teacher's answer; mask_rcnn has random
    weights and finds nothing: the least time it takes
"""

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case
from ojd.streams import base as streams
from ojd.teachers import base as teachers


def mask_rcnn(at):
  """Over torchvision's."""
  return _teacher("mask_rcnn", "random", at)


def mask_rcnn_tiny(at):
  """Over the one that comes with the package."""
  return _teacher("mask_rcnn_tiny", "", at)


def _teacher(name, weights, at):
  text = f"{name}:weights={weights}" if weights else name
  made = teachers.make_teacher(text, teachers.Context((), *at.size, {}))
  sample = next(iter(streams.open_stream("synthetic:street", *at.size).read()))
  return measure.compare(
    f"student_vs_{name}",
    students.forward(at),
    lambda: made(sample).masks,
    at=at,
    repeats=max(1, at.repeats // 2),
    note="a forward pass and a teacher's answer",
  )


CASES = [
  Case(fn, size)
  for size in (measure.BIG, measure.SMALL)
  for fn in (mask_rcnn, mask_rcnn_tiny)
]
