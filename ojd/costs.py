"""What a method takes on the machine of the JITNet paper."""

from typing import NamedTuple


class Costs(NamedTuple):
  """Prices in milliseconds; by default those of the paper's student."""

  teacher: float = 300.0  # a call
  predict: float = 7.0  # a frame that the teacher is not asked about
  update: float = 30.0  # a gradient step
  lesson: float = 0.0  # a key frame, beside the teacher and the updates
