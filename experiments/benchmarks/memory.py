"""The memory of a run.

memory_vs_1500_mb
    the most memory that a run without its teacher and without an overlay holds,
    over 1500 MB (below 1 at 720x1280)
memory_growth
    the same after 3,000 frames, over after 300
"""

import numpy as np

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Case

_GOAL_MB = 1500


def peak(at):
  """The peak of a run that compiles, learns and predicts."""
  peaks = [_peak_mb(at.size, 24) for _ in range(max(1, at.repeats // 3))]
  note = f"{np.median(peaks):.0f} MB, 24 frames, {at.size_text}"
  return measure.of_ratios(
    "memory_vs_1500_mb", np.array(peaks) / _GOAL_MB, note
  )


def growth(at):
  """The peak of a long run beside that of a short one."""
  num_frames = 3000 if at.repeats > 3 else 600
  _peak_mb(at.size, 1)  # whatever is compiled, neither of the two compiles it
  short, long = (_peak_mb(at.size, n) for n in (num_frames // 10, num_frames))
  note = f"{short:.0f} MB, {long:.0f} MB; {at.size_text}"
  return measure.of_ratios("memory_growth", [long / short], note)


def _peak_mb(size, num_frames):
  return measure.run_in_process(size, num_frames)["peak_memory_mb"]


CASES = [Case(peak, measure.BIG), Case(growth, measure.TINY)]
