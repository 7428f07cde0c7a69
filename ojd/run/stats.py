"""The counts of a run, its clock, and the run in numbers."""

import contextlib
import dataclasses
import resource
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ojd import metrics
from ojd.costs import Costs
from ojd.teachers import labelers
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


class Stages:
  """Adds up the seconds of named stages; the clock can be injected."""

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    self.seconds: dict[str, float] = {}
    self.counts: dict[str, int] = {}
    self.last: dict[str, float] = {}
    self._clock, self._start = clock, clock()

  def elapsed(self) -> float:
    """Seconds since this clock was made."""
    return self._clock() - self._start

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Times a block, also one that raises."""
    start = self._clock()
    try:
      yield
    finally:
      self.add(name, self._clock() - start)

  def add(self, name: str, seconds: float) -> None:
    """Counts a block that was timed elsewhere."""
    self.last[name] = seconds
    self.seconds[name] = self.seconds.get(name, 0.0) + seconds
    self.counts[name] = self.counts.get(name, 0) + 1

  def restore(self, seconds: dict[str, float], counts: dict[str, int]) -> None:
    """Adds what the same stages took before this clock was made."""
    for name, spent in seconds.items():
      self.seconds[name] = self.seconds.get(name, 0.0) + spent
      self.counts[name] = self.counts.get(name, 0) + counts[name]

  def milliseconds(self, name: str) -> float:
    """Of the latest block of that name."""
    return round(1e3 * self.last[name], 3)

  def mean(self, name: str) -> float:
    """Seconds of an average block; 0 without any."""
    return self.seconds.get(name, 0.0) / max(self.counts.get(name, 0), 1)


@dataclasses.dataclass
class RunStats:
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


def empty(num_classes: int) -> RunStats:
  """The counts before the first frame."""
  return RunStats(np.zeros((num_classes, num_classes), np.int64))


def to_json(stats: RunStats) -> dict[str, Any]:
  """The counts as `from_json` takes them."""
  return dataclasses.asdict(stats) | {"confusion": stats.confusion.tolist()}


def from_json(content: dict[str, Any]) -> RunStats:
  """The counts that `to_json` wrote down."""
  confusion = np.array(content["confusion"], np.int64)
  return RunStats(**content | {"confusion": confusion})


def count_key(stats: RunStats, info: StepInfo) -> dict[str, Any]:
  """Counts a key frame; returns what metrics.jsonl says of it.

  Args:
    stats: which is changed.
    info: of the step, as plain numbers.
  """
  stats.stride = info.stride
  stats.num_keys += 1
  stats.num_updates += info.num_updates
  stats.num_rolled_back += info.num_rolled_back
  return {
    "is_key": True,
    "num_updates": info.num_updates,
    "num_rolled_back": info.num_rolled_back,
    "miou_before": info.miou_before,
    "miou_after": info.miou_after,
    "loss": info.loss,
    "grad_norm": info.grad_norm,
  }


def count_unanswered(
  stats: RunStats, problem: str, t: int | None = None
) -> str:
  """Counts a question that brought no labels; returns what to write down.

  Args:
    stats: which is changed.
    problem: why there are none.
    t: the frame of the question; None where it was told before.
  """
  if problem == labelers.DEFERRED:
    stats.num_deferred += 1
    return problem
  stats.num_teacher_failures += 1
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
  stats: RunStats, stages: Stages, total: int | None, problem: str
) -> Progress:
  """The counts as a watcher wants them."""
  return Progress(
    num_frames=stats.first_t + stats.num_frames + stats.num_skipped,
    total=total,
    fps=_frames_per_second(stats, stages),
    stride=stats.stride,
    num_keys=stats.num_keys,
    num_updates=stats.num_updates,
    miou=stats.miou(),
    problem=problem,
    num_skipped=stats.num_skipped,
    num_teacher_failures=stats.num_teacher_failures,
    seconds=dict(stages.seconds),
  )


def seconds_of_work(stages: Stages) -> float:
  """Time that the method took: no compilation, no judging."""
  return sum(s for name, s in stages.seconds.items() if name not in APART)


def _frames_per_second(stats, stages):
  seconds = seconds_of_work(stages)
  return stats.num_frames / seconds if seconds else 0.0


def _measured_speedup(stats, stages):
  """Over the teacher on every frame, from its average time."""
  names = ("teacher", "teacher_async", "eval_teacher")
  teacher = next(filter(None, map(stages.mean, names)), 0.0)
  return teacher * _frames_per_second(stats, stages)


def summarize(
  stats: RunStats,
  stages: Stages,
  *,
  class_names: tuple[str, ...],
  has_truth: bool,
  is_teacher_free: bool,
  num_interrupted: int,
  costs: Costs = _STUDENT,
) -> dict[str, Any]:
  """The content of summary.json."""
  per_class = metrics.iou_per_class(stats.confusion)
  counts = stats.num_frames, stats.num_keys, stats.num_updates
  paper = paper_speedup(*counts, costs)
  measured = None if is_teacher_free else _measured_speedup(stats, stages)
  late = {}
  if stats.total_delay is not None:
    delay = stats.total_delay / stats.num_keys if stats.num_keys else None
    late["mean_delay_frames"] = delay
  return {
    "finished": stats.finished,
    "num_frames": stats.num_frames,
    "num_key_frames": stats.num_keys,
    "key_frame_fraction": round(stats.num_keys / max(stats.num_frames, 1), 6),
    "num_updates": stats.num_updates,
    **late,
    "num_recalled": stats.num_recalled,
    "num_rolled_back": stats.num_rolled_back,
    "num_skipped": stats.num_skipped,
    "teacher_failures": stats.num_teacher_failures,
    "deferred": stats.num_deferred,
    "miou": {
      "mean": stats.miou(),
      "per_class": {
        name: _finite(float(per_class[i]))
        for i, name in enumerate(class_names)
        if i
      },
      "reference": "truth" if has_truth else "teacher",
    },
    "eval_frames": stats.eval_frames,
    "gmac_per_frame": stats.gmac_per_frame,
    "fps": round(_frames_per_second(stats, stages), 3),
    "speedup_measured": None if measured is None else round(measured, 3),
    "speedup_paper_model": round(paper, 3),
    "paper_ms": costs._asdict(),
    "seconds": {name: round(s, 4) for name, s in stages.seconds.items()},
    "first_frame_seconds": stats.first_frame_seconds,
    "peak_memory_mb": peak_memory_mb(),
    "interrupted": num_interrupted + stats.num_resumed + (not stats.finished),
    "resumed": stats.num_resumed,
  }


def _finite(x: float) -> float | None:
  """NaN and infinity are no JSON."""
  return x if np.isfinite(x) else None


def peak_memory_mb() -> float:
  """The most memory that this process ever held, in MB."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def paper_speedup(
  num_frames: int, num_keys: int, num_updates: int, costs: Costs = _STUDENT
) -> float:
  """How much faster than the teacher on every frame, by the paper's prices.

  300 N / (7 (N - n) + 300 n + 30 u) for a student; it is not charged on key
  frames. Methods of other prices have theirs.
  """
  spent = costs.predict * (num_frames - num_keys)
  spent += (costs.teacher + costs.lesson) * num_keys
  spent += costs.update * num_updates
  return costs.teacher * num_frames / spent if spent else 0.0
