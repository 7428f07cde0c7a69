"""Labels of a detector's answer.

labels_vs_student
    30 instances of 28x28 masks made labels, over the student's forward pass
    (below 15 ms at 720x1280)
"""

import numpy as np

from experiments.benchmarks import measure, students
from experiments.benchmarks.measure import Case
from ojd import labels as labels_lib
from ojd.types import Instances


def make_labels(at):
  """Labels of a detector's answer against the student's forward pass."""
  rng = np.random.default_rng(0)
  corners = rng.uniform(0, 0.8, (30, 2)) * at.size
  sides = rng.uniform(0.05, 0.5, (30, 2)) * at.size
  instances = Instances(
    np.concatenate([corners, corners + sides], 1).astype(np.float32),
    np.ones(30, np.float32),
    rng.integers(1, students.NUM_CLASSES, 30).astype(np.int32),
    rng.random((30, 28, 28), np.float32),
  )
  names = [f"class {i}" for i in range(1, students.NUM_CLASSES)]
  groups = labels_lib.parse_groups("", ("background", *names))
  return measure.compare(
    "labels_vs_student",
    lambda: labels_lib.from_instances(instances, groups, *at.size),
    students.forward(at),
    at=at,
    note="30 instances made labels and a forward pass",
  )


CASES = [Case(make_labels, measure.BIG)]
