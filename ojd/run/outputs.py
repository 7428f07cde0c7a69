"""All that a run writes frame by frame, behind one door."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ojd.run import checkpoint as checkpoint_lib
from ojd.run import gallery as gallery_lib
from ojd.run import job as job_lib
from ojd.run import overlay, sinks, stats, trackers, workdir, writers
from ojd.types import Sample, StepInfo

LineFn = Callable[[dict[str, Any]], None]


class Reference(NamedTuple):
  """The latest labels that were learnt from."""

  classes: np.ndarray | None = None  # [H, W] uint8
  t: int | None = None  # their frame


class Company(NamedTuple):
  """Who else is told of a run's frames."""

  curves: trackers.Trackers | None = None  # take the metrics; closed at the end
  views: Sequence[writers.Sink] = ()  # take the pictures; closed at the end
  line_fn: LineFn = lambda line: None  # called with every line of the metrics


class Outputs:
  """Metrics, pictures and curves of one run."""

  def __init__(
    self,
    job: job_lib.Job,
    path,
    counts: stats.RunStats,
    start: int,
    company: Company,
  ):
    """Opens the files in the workdir.

    Args:
      job: what is run.
      path: the workdir.
      counts: of the run so far.
      start: the frame that it begins or goes on with.
      company: of others.
    """
    config, spec = job.config, job.stream.spec
    self._fps, self._company = spec.fps, company
    self._metrics = writers.MetricsWriter(
      path / workdir.METRICS, counts.num_frames
    )
    self._sinks: list[writers.Sink] = sinks.open_sinks(
      path,
      spec.fps,
      job.groups.names,
      video=config.overlay,
      masks=config.save_masks,
      boxes=config.boxes,
      areas=config.areas,
      size=spec.source_size,
      start=start,
    )
    self._sinks += company.views
    self._gallery: gallery_lib.Gallery | None = None
    if config.overlay:
      self._gallery = gallery_lib.Gallery(
        path / workdir.REPORT / "keys",
        job.groups.names,
        start=start,
        num_keys=counts.num_keys,
      )

  @property
  def wants_pictures(self) -> bool:
    """Whether `put` does anything."""
    return bool(self._sinks)

  @property
  def wants_keys(self) -> bool:
    """Whether some key frames are wanted before and after."""
    return self._gallery is not None

  def wants_key(self, index: int) -> bool:
    """Whether the key frame of that number is wanted before and after."""
    return self._gallery is not None and self._gallery.is_due(index)

  def put_key(self, index: int, record: gallery_lib.KeyRecord) -> None:
    """Takes a key frame that was wanted."""
    self._gallery.put(index, record)

  def write(self, line: dict[str, Any], miou: float | None) -> str:
    """Takes a line of the metrics; says what went wrong with a curve."""
    self._metrics.write(line)
    self._company.line_fn(line)
    if self._company.curves is None:
      return ""
    return self._company.curves.write(line | {"miou": miou})

  def put(
    self,
    sample: Sample,
    truth: np.ndarray | None,
    reference: Reference,
    classes: np.ndarray,
    info: StepInfo | None,
    counts: stats.RunStats,
  ) -> None:
    """Takes a frame, what is expected of it and what the student says."""
    expected, title = truth, "truth"
    if truth is None:
      age = 0 if reference.classes is None else sample.t - reference.t
      expected = reference.classes
      title = "teacher" if age == 0 else f"teacher, {age} frames ago"
    seconds = sample.seconds
    if seconds is None:
      seconds = sample.t / self._fps
    caption = overlay.Caption(
      t=sample.t,
      is_key=info is not None,
      num_updates=info.num_updates if info else 0,
      stride=counts.stride,
      miou=counts.miou(),
      reference_title=title,
      seconds=seconds,
    )
    record = writers.FrameRecord(
      sample.t, sample.frame, expected, classes, caption
    )
    for sink in self._sinks:
      sink.put(record)

  def cut(self) -> Callable[[], None]:
    """Ends here what may be gone on from here; returns how to wait for it."""
    waits = [file.cut() for file in self._files()]
    return lambda: [wait() for wait in waits]

  def closers(self) -> list[Callable[[], None]]:
    """How to close everything but the curves, the last thing first."""
    return [file.close for file in (self._metrics, *self._files())]

  def close_curves(self) -> str:
    """Says what went wrong with them."""
    curves = self._company.curves
    return curves.close() if curves is not None else ""

  def _files(self):
    return self._sinks + ([] if self._gallery is None else [self._gallery])


def reference_of(snapshot: checkpoint_lib.Snapshot | None) -> Reference:
  """The latest labels at a snapshot of a run."""
  if snapshot is None:
    return Reference()
  return Reference(snapshot.reference, snapshot.reference_t)
