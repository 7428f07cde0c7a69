"""The paper's cost model, and what of a run's time a method is charged for."""

from ojd.types import Costs

# Stages that are no part of the method: compiling, evaluating, what the teacher
# does while the stream goes on, and what comes before the first frame.
EXCLUDED_STAGES = (
  "compile",
  "evaluate",
  "eval_teacher",
  "eval_teacher_failed",
  "teacher_async",
  "pretrain",
)
_STUDENT = Costs()


def paper_speedup(
  num_frames: int, num_keys: int, num_updates: int, costs: Costs = _STUDENT
) -> float:
  """The speed-up over the teacher on every frame, by the paper's cost model.

  300 N / (7 (N - n) + 300 n + 30 u) for a student of N frames, n of them key
  frames, and u updates; its own answers on key frames are not charged. Methods
  of other costs have theirs.
  """
  spent = costs.predict * (num_frames - num_keys)
  spent += (costs.teacher + costs.training) * num_keys
  spent += costs.update * num_updates
  return costs.teacher * num_frames / spent if spent else 0.0
