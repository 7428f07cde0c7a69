"""A gradient step of the student.

update_vs_torch, update_vs_torch_compile
    over the same step in torch (at most 1 at 720x1280)
"""

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case


def eager(at):
  """Over torch as it is."""
  return students.update_vs_torch("update_vs_torch", at)


def compiled(at):
  """Over torch's compiler."""
  name = "update_vs_torch_compile"
  return students.update_vs_torch(name, at, by_compiler=True)


CASES = [
  Case(eager, measure.BIG),
  Case(compiled, measure.BIG, is_long=True),
]
