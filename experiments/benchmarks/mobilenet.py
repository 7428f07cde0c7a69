"""The student --model=mobilenet_v2.

mobilenet_forward_vs_torch, mobilenet_update_vs_torch
    a frame's classes and a gradient step, over the same network in torch
"""

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case

_MODEL = "mobilenet_v2"


def forward(at):
  """A frame's classes."""
  name = "mobilenet_forward_vs_torch"
  return students.forward_vs_torch(name, at, model=_MODEL)


def update(at):
  """A gradient step."""
  name = "mobilenet_update_vs_torch"
  return students.update_vs_torch(name, at, model=_MODEL)


CASES = [Case(forward, measure.SMALL), Case(update, measure.SMALL)]
