"""The stream's own labels as the teacher: perfect, and free."""

import numpy as np

from ojd.errors import UserError
from ojd.teachers import base
from ojd.types import IGNORE, Sample


class GroundTruth:
  """Answers with the class map that the stream gives with the frame."""

  is_free = True

  def __init__(self, class_names: tuple[str, ...]):
    self.class_names = class_names

  def __call__(self, sample: Sample) -> np.ndarray:
    if sample.truth is None:  # of this frame alone: nothing to learn from it
      return np.full(sample.frame.shape[:2], IGNORE, np.uint8)
    return sample.truth


def make_teacher(request: base.TeacherRequest) -> GroundTruth:
  """Refuses a stream without labels."""
  base.refuse_argument(request)
  if not request.truth_names:
    raise UserError(
      "--teacher=ground_truth: this stream has no labels; name another teacher"
    )
  return GroundTruth(request.truth_names)
