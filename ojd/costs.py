"""Prices of a method's steps on the machine of the JITNet paper."""

from typing import NamedTuple


class Costs(NamedTuple):
  """Milliseconds; by default those of the paper's student.

  The paper's cost model of N frames, n key frames and u updates is

      teacher n + predict (N - n) + update u + training n
  """

  teacher: float = 300.0  # a call
  predict: float = 7.0  # a frame that is no key frame
  update: float = 30.0  # a gradient step
  training: float = 0.0  # a key frame, beside the teacher and the updates
