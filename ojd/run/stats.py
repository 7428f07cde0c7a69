"""The statistics of a run: its counts, its clock and its summary."""

import contextlib
import dataclasses
import pathlib
import re
import resource
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ojd import costs as costs_lib
from ojd import distill, metrics
from ojd.models import student as student_lib
from ojd.models.delta import conversion
from ojd.teachers import labelers
from ojd.types import Costs, StepInfo

# The first of these that was timed is the time of the teacher.
_TEACHER_STAGES = ("teacher", "teacher_async", "eval_teacher")
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
    """Times a block, even if it raises."""
    start = self._clock()
    try:
      yield
    finally:
      self.add(name, self._clock() - start)

  def add(self, name: str, seconds: float) -> None:
    """Adds a block that was timed elsewhere."""
    self.last[name] = seconds
    self.seconds[name] = self.seconds.get(name, 0.0) + seconds
    self.counts[name] = self.counts.get(name, 0) + 1

  def restore(self, seconds: dict[str, float], counts: dict[str, int]) -> None:
    """Adds the seconds and counts of a clock from before an interruption."""
    for name, spent in seconds.items():
      self.seconds[name] = self.seconds.get(name, 0.0) + spent
      self.counts[name] = self.counts.get(name, 0) + counts[name]

  def milliseconds(self, name: str) -> float:
    """Milliseconds of the latest block of this name."""
    return round(1e3 * self.last[name], 3)

  def mean(self, name: str) -> float:
    """Mean seconds of a block; 0 if there are none."""
    return self.seconds.get(name, 0.0) / max(self.counts.get(name, 0), 1)

  def mean_of_teacher(self) -> float:
    """Mean seconds of an answer of the teacher; 0 if there are none."""
    return next(filter(None, map(self.mean, _TEACHER_STAGES)), 0.0)

  def seconds_of_method(self) -> float:
    """Seconds of all stages that are part of the method."""
    return sum(
      seconds
      for name, seconds in self.seconds.items()
      if name not in costs_lib.EXCLUDED_STAGES
    )


class Progress(NamedTuple):
  """How far a run is, for progress lines and displays."""

  num_frames: int  # taken from the stream
  total: int | None  # None if the length is unknown
  fps: float
  stride: int
  num_keys: int
  num_updates: int
  miou: float | None
  problem: str = ""  # of the latest frame
  num_skipped: int = 0  # those of num_frames that could not be read
  num_teacher_failures: int = 0
  seconds: Mapping[str, float] = types.MappingProxyType({})  # by stage


@dataclasses.dataclass
class RunStats:
  """The counts of a run in progress."""

  confusion: np.ndarray  # [C, C] int64
  first_t: int = 0  # the first frame; above 0 in a fork
  num_before: int = 0  # frames that the system has seen before it
  num_frames: int = 0
  num_keys: int = 0
  num_updates: int = 0
  num_cached_labels: int = 0  # requests answered with recorded labels
  num_rolled_back: int = 0
  num_skipped: int = 0  # frames that could not be read
  num_teacher_failures: int = 0
  num_deferred: int = 0  # requests that a shared teacher did not get
  eval_frames: int = 0
  stride: int = 0
  # Frames from requests to updates, summed; None if the stream waits.
  total_delay: int | None = None
  link: dict[str, Any] | None = None  # state of the network, if there is one
  next_key: int = 0
  first_frame_seconds: float | None = None  # from the start to the answer
  gmac_per_frame: float | None = None  # of the student's answers
  num_resumed: int = 0  # times that the run was resumed
  finished: bool = False

  @classmethod
  def empty(cls, num_classes: int) -> "RunStats":
    """The counts before the first frame."""
    return cls(np.zeros((num_classes, num_classes), np.int64))

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> "RunStats":
    """The counts that `to_json` gives."""
    confusion = np.array(content["confusion"], np.int64)
    return cls(**content | {"confusion": confusion})

  def to_json(self) -> dict[str, Any]:
    """The counts as `from_json` takes them."""
    return dataclasses.asdict(self) | {"confusion": self.confusion.tolist()}

  @property
  def clock(self) -> int:
    """Frames that the system has seen."""
    return self.num_before + self.num_frames

  def miou(self) -> float | None:
    """mIoU of the run so far; None if nothing was evaluated."""
    return metrics.run_miou(self.confusion) if self.eval_frames else None

  def count_key(self, info: StepInfo) -> None:
    """Counts a key frame; `info` has plain numbers."""
    self.stride = info.stride
    self.num_keys += 1
    self.num_updates += info.num_updates
    self.num_rolled_back += info.num_rolled_back

  def count_unlabeled(self, problem: str, t: int | None = None) -> str:
    """Counts a request that got no labels.

    Args:
      problem: the reason.
      t: the frame of the request; None if the problem already names it.

    Returns:
      The problem, as it is logged and shown.
    """
    if problem == labelers.DEFERRED:
      self.num_deferred += 1
      return problem
    self.num_teacher_failures += 1
    if t is None:
      return problem
    return f"the teacher failed on frame {t}: {problem}"

  def fps(self, stages: Stages) -> float:
    """Frames per second of the method's own time; 0 before the first frame."""
    seconds = stages.seconds_of_method()
    return self.num_frames / seconds if seconds else 0.0

  def progress(
    self, stages: Stages, total: int | None, problem: str = ""
  ) -> Progress:
    """The progress of the run."""
    return Progress(
      num_frames=self.first_t + self.num_frames + self.num_skipped,
      total=total,
      fps=self.fps(stages),
      stride=self.stride,
      num_keys=self.num_keys,
      num_updates=self.num_updates,
      miou=self.miou(),
      problem=problem,
      num_skipped=self.num_skipped,
      num_teacher_failures=self.num_teacher_failures,
      seconds=dict(stages.seconds),
    )


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
  """The content of summary.json.

  Args:
    stats: of the run.
    stages: its clock.
    class_names: background first.
    has_truth: whether the reference of mIoU is the stream's own labels.
    is_teacher_free: whether the teacher's time is too small to compare with.
    num_interrupted: runs in the same workdir that were set aside.
    costs: of the method, in the paper's cost model.
  """
  per_class = metrics.iou_per_class(stats.confusion)
  counts = stats.num_frames, stats.num_keys, stats.num_updates
  paper = costs_lib.paper_speedup(*counts, costs)
  # Relative to the teacher on every frame.
  measured = stages.mean_of_teacher() * stats.fps(stages)
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
    "num_cached_labels": stats.num_cached_labels,
    "num_rolled_back": stats.num_rolled_back,
    "num_skipped": stats.num_skipped,
    "teacher_failures": stats.num_teacher_failures,
    "deferred": stats.num_deferred,
    "miou": {
      "mean": stats.miou(),
      "per_class": {
        name: float(iou) if np.isfinite(iou) else None
        for name, iou in zip(class_names[1:], per_class[1:], strict=True)
      },
      "reference": "truth" if has_truth else "teacher",
    },
    "eval_frames": stats.eval_frames,
    "gmac_per_frame": stats.gmac_per_frame,
    "fps": round(stats.fps(stages), 3),
    "ms": {
      "teacher": round(1e3 * stages.mean_of_teacher(), 3),
      "learn": round(1e3 * stages.mean("learn"), 3),
      "predict": round(1e3 * stages.mean("predict"), 3),
    },
    "speedup_measured": None if is_teacher_free else round(measured, 3),
    "speedup_paper_model": round(paper, 3),
    "paper_ms": costs._asdict(),
    "seconds": {name: round(s, 4) for name, s in stages.seconds.items()},
    "first_frame_seconds": stats.first_frame_seconds,
    "peak_memory_mb": peak_memory_mb(),
    "interrupted": num_interrupted + stats.num_resumed + (not stats.finished),
    "resumed": stats.num_resumed,
  }


def peak_memory_mb() -> float:
  """The peak memory of this process, in MB."""
  # On Linux, getrusage includes the peak of the parent process.
  with contextlib.suppress(OSError):
    status = pathlib.Path("/proc/self/status").read_text()
    if found := re.search(r"VmHWM:\s*(\d+) kB", status):
      return round(int(found[1]) / (1 << 10), 1)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def gmac_per_frame(
  system: distill.System,
  student: student_lib.Student | None,
  state: distill.State,
  *,
  height: int,
  width: int,
  num_frames: int,
) -> float | None:
  """Multiply-accumulates / 1e9 of the student's convolutions per answer.

  It is the mean over the frames that the state has seen, without learning, or
  None if it is unknown.
  """
  serving = system.serving
  if serving is not None and serving.gmac is not None:
    total = float(serving.gmac(state))
    return total / num_frames if num_frames else None
  # Otherwise the whole student computes each answer, or something else does.
  is_whole = serving is not None and serving.predict is not None
  if is_whole and student is not None and student.run:
    found = conversion.trace(student, height, width)
    return sum(site.macs for site in found) / 1e9
  return None
