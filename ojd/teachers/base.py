"""The teacher protocol and the table of names."""

import importlib
from typing import Protocol

import numpy as np

from ojd import labels as labels_lib
from ojd.errors import RequestError
from ojd.types import (
  MAX_CLASSES,
  Instances,
  Labels,
  Sample,
  check_class_map,
)


class Teacher(Protocol):
  """Looks at a frame and says what is where, in classes of its own."""

  class_names: tuple[str, ...]  # "background" first
  is_free: bool  # its answers cost nothing: no speed-up to be measured

  def __call__(self, sample: Sample) -> Instances | np.ndarray:
    """Instances, or a class map [H, W] uint8, of the sample's frame."""
    ...


# name -> module with make_teacher(truth_names) -> Teacher
TEACHERS = {"ground_truth": "ojd.teachers.ground_truth"}


def make_teacher(name: str, truth_names: tuple[str, ...]) -> Teacher:
  """The teacher of a `--teacher` name.

  Args:
    name: a row of the table.
    truth_names: classes of the stream's own labels, empty if it has none.
  """
  if name not in TEACHERS:
    raise RequestError(
      f"--teacher={name}: unknown; known are {', '.join(TEACHERS)}"
    )
  return importlib.import_module(TEACHERS[name]).make_teacher(truth_names)


def label(
  teacher: Teacher, sample: Sample, groups: labels_lib.ClassGroups
) -> Labels:
  """Asks the teacher, and turns its answer into labels for the student."""
  answer = teacher(sample)
  if isinstance(answer, Instances):
    height, width = sample.frame.shape[:2]
    return labels_lib.from_instances(answer, groups, height, width)
  if len(teacher.class_names) > MAX_CLASSES:
    raise RequestError(
      f"--teacher: a class map cannot tell {len(teacher.class_names)} classes "
      f"apart, at most {MAX_CLASSES}"
    )
  check_class_map("the teacher's answer", answer, sample.frame)
  return labels_lib.from_class_map(answer, groups)
