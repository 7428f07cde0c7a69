"""The counts of a run, and the run in numbers."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ojd import metrics
from ojd.costs import Costs
from ojd.run.timing import Stages, paper_speedup, peak_memory_mb
from ojd.teachers import asking
from ojd.types import StepInfo

# What the method itself does not take: compiling, being judged, what the
# teacher does while the stream goes on, and all that is done before it begins.
APART = (
  "compile",
  "evaluate",
  "eval_teacher",
  "eval_teacher_failed",
  "teacher_async",
  "pretrain",
)


_STUDENT = Costs()


@dataclasses.dataclass
class Tally:
  """Counts of a run in progress."""

  confusion: np.ndarray  # [C, C] int64
  first_t: int = 0  # the first frame; of a fork not that of the stream
  num_before: int = 0  # frames that the system had seen by then
  num_frames: int = 0
  num_keys: int = 0
  num_updates: int = 0
  num_recalled: int = 0  # questions whose answer was known
  num_rolled_back: int = 0
  num_skipped: int = 0  # frames that could not be read
  num_teacher_failures: int = 0
  num_deferred: int = 0  # questions that a teacher of many was not asked
  eval_frames: int = 0
  stride: int = 0
  # Frames from questions to what was learnt of them; None where all wait.
  total_delay: int | None = None
  link: dict[str, Any] | None = None  # of `linked`; None without a network
  next_key: int = 0
  first_frame_seconds: float | None = None  # from the start to the answer
  gmac_per_frame: float | None = None  # of the student's answers
  num_resumed: int = 0  # times that the run was gone on with
  finished: bool = False

  @property
  def clock(self) -> int:
    """Frames that the system has seen."""
    return self.num_before + self.num_frames

  def miou(self) -> float | None:
    """Of the run so far; None where nothing was compared."""
    return metrics.run_miou(self.confusion) if self.eval_frames else None


def empty(num_classes: int) -> Tally:
  """The counts before the first frame."""
  return Tally(np.zeros((num_classes, num_classes), np.int64))


def to_json(tally: Tally) -> dict[str, Any]:
  """The counts as `from_json` takes them."""
  return dataclasses.asdict(tally) | {"confusion": tally.confusion.tolist()}


def from_json(content: dict[str, Any]) -> Tally:
  """The counts that `to_json` wrote down."""
  confusion = np.array(content["confusion"], np.int64)
  return Tally(**content | {"confusion": confusion})


def count_key(tally: Tally, info: StepInfo) -> dict[str, Any]:
  """Counts a key frame; returns what metrics.jsonl says of it.

  Args:
    tally: which is changed.
    info: of the step, as plain numbers.
  """
  tally.stride = info.stride
  tally.num_keys += 1
  tally.num_updates += info.num_updates
  tally.num_rolled_back += info.num_rolled_back
  return {
    "is_key": True,
    "num_updates": info.num_updates,
    "num_rolled_back": info.num_rolled_back,
    "miou_before": info.miou_before,
    "miou_after": info.miou_after,
    "loss": finite(info.loss),
    "grad_norm": finite(info.grad_norm),
  }


def count_unanswered(tally: Tally, problem: str, t: int | None = None) -> str:
  """Counts a question that brought no labels; returns what to write down.

  Args:
    tally: which is changed.
    problem: why there are none.
    t: the frame of the question; None where it was told before.
  """
  if problem == asking.DEFERRED:
    tally.num_deferred += 1
    return problem
  tally.num_teacher_failures += 1
  return problem if t is None else f"the teacher failed on frame {t}: {problem}"


class Progress(NamedTuple):
  """Where a run is, for whoever watches."""

  num_frames: int  # taken from the stream
  total: int | None  # None where the end is not known
  fps: float
  stride: int
  num_keys: int
  num_updates: int
  miou: float | None
  problem: str = ""  # what just went wrong with a frame
  num_skipped: int = 0  # of num_frames, that could not be read
  num_teacher_failures: int = 0
  seconds: Mapping[str, float] = types.MappingProxyType({})  # by stage


def progress(
  tally: Tally, stages: Stages, total: int | None, problem: str
) -> Progress:
  """The counts as a watcher wants them."""
  return Progress(
    num_frames=tally.first_t + tally.num_frames + tally.num_skipped,
    total=total,
    fps=_frames_per_second(tally, stages),
    stride=tally.stride,
    num_keys=tally.num_keys,
    num_updates=tally.num_updates,
    miou=tally.miou(),
    problem=problem,
    num_skipped=tally.num_skipped,
    num_teacher_failures=tally.num_teacher_failures,
    seconds=dict(stages.seconds),
  )


def seconds_of_work(stages: Stages) -> float:
  """Time that the method took: no compilation, no judging."""
  return sum(s for name, s in stages.seconds.items() if name not in APART)


def _frames_per_second(tally, stages):
  seconds = seconds_of_work(stages)
  return tally.num_frames / seconds if seconds else 0.0


def _measured_speedup(tally, stages):
  """Over the teacher on every frame, from its average time."""
  names = ("teacher", "teacher_async", "eval_teacher")
  teacher = next(filter(None, map(stages.mean, names)), 0.0)
  return teacher * _frames_per_second(tally, stages)


def summarize(
  tally: Tally,
  stages: Stages,
  *,
  class_names: tuple[str, ...],
  has_truth: bool,
  is_teacher_free: bool,
  num_interrupted: int,
  costs: Costs = _STUDENT,
) -> dict[str, Any]:
  """The content of summary.json."""
  per_class = metrics.iou_per_class(tally.confusion)
  counts = tally.num_frames, tally.num_keys, tally.num_updates
  paper = paper_speedup(*counts, costs)
  measured = None if is_teacher_free else _measured_speedup(tally, stages)
  late = {}
  if tally.total_delay is not None:
    delay = tally.total_delay / tally.num_keys if tally.num_keys else None
    late["mean_delay_frames"] = delay
  return {
    "finished": tally.finished,
    "num_frames": tally.num_frames,
    "num_key_frames": tally.num_keys,
    "key_frame_fraction": round(tally.num_keys / max(tally.num_frames, 1), 6),
    "num_updates": tally.num_updates,
    **late,
    "num_recalled": tally.num_recalled,
    "num_rolled_back": tally.num_rolled_back,
    "num_skipped": tally.num_skipped,
    "teacher_failures": tally.num_teacher_failures,
    "deferred": tally.num_deferred,
    "miou": {
      "mean": tally.miou(),
      "per_class": {
        name: finite(float(per_class[i]))
        for i, name in enumerate(class_names)
        if i
      },
      "reference": "truth" if has_truth else "teacher",
    },
    "eval_frames": tally.eval_frames,
    "gmac_per_frame": tally.gmac_per_frame,
    "fps": round(_frames_per_second(tally, stages), 3),
    "speedup_measured": None if measured is None else round(measured, 3),
    "speedup_paper_model": round(paper, 3),
    "paper_ms": costs._asdict(),
    "seconds": {name: round(s, 4) for name, s in stages.seconds.items()},
    "first_frame_seconds": tally.first_frame_seconds,
    "peak_memory_mb": peak_memory_mb(),
    "interrupted": num_interrupted + tally.num_resumed + (not tally.finished),
    "resumed": tally.num_resumed,
  }


def finite(x: float) -> float | None:
  """NaN and infinity are no JSON."""
  return x if np.isfinite(x) else None
