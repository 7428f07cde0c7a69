"""Synthetic streams.

drawing_vs_student
    drawing a frame of the street, frame and truth, over the student's forward
    pass (below 1 at 192x320)
"""

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case
from ojd.streams import base as streams


def draw(at):
  """Drawing a synthetic frame against the student's forward pass."""
  samples = iter(streams.open_stream("synthetic:street", *at.size).read())
  return measure.compare(
    "drawing_vs_student",
    lambda: next(samples).frame,
    students.forward(at),
    at=at,
    repeats=8 * at.repeats,
    note="a frame drawn and a forward pass",
  )


CASES = [Case(draw, measure.SMALL)]
