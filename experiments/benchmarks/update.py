"""A gradient step of the student.

update_vs_torch, update_vs_torch_compile
    over the same step in torch (at most 1 at 720x1280)
"""

from experiments.benchmarks import measure, torch_baseline
from experiments.benchmarks.measure import Case


def eager(at):
  """Over torch as it is."""
  return torch_baseline.update("update_vs_torch", at)


def compiled(at):
  """Over torch's compiler."""
  name = "update_vs_torch_compile"
  return torch_baseline.update(name, at, by_compiler=True)


CASES = [
  Case(eager, measure.BIG),
  Case(compiled, measure.BIG, is_long=True),
]
