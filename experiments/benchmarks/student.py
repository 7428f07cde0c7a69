"""A frame's classes by the Flax student.

student_forward_vs_torch, student_forward_vs_torch_compile
    over the same network in torch, channels last (at most 1 at 720x1280)
key_norm_vs_frame_norm
    with --system=jit:norm=key_frame, over norm=frame
"""

import jax

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case
from ojd.tasks.segmentation import classify


def eager(at):
  """Over torch as it is."""
  return students.forward_vs_torch("student_forward_vs_torch", at)


def compiled(at):
  """Over torch's compiler."""
  name = "student_forward_vs_torch_compile"
  return students.forward_vs_torch(name, at, by_compiler=True)


def key_norm(at):
  """A forward pass by the norms of a key frame, and by the frame's own."""
  student, params, frame, _ = students.inputs(at)
  _, norms = jax.jit(student.observe)(params, frame)
  by_key = jax.jit(lambda p, n, x: classify(student.apply_held(p, n, x)))
  by_own = jax.jit(lambda p, x: classify(student.apply(p, x)))
  return measure.compare(
    "key_norm_vs_frame_norm",
    lambda: by_key(params, norms, frame),
    lambda: by_own(params, frame),
    at=at,
    repeats=3 * at.repeats,
    note=f"forward passes to classes, {at.precision}",
  )


CASES = [
  Case(eager, measure.BIG),
  Case(compiled, measure.BIG, is_long=True),
  Case(key_norm, measure.BIG),
]
