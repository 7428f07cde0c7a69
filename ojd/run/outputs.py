"""Everything that a run writes frame by frame, in one class."""

import contextlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ojd.run import build, overlay, sinks, trackers, workdir, writers
from ojd.run import checkpoint as checkpoint_lib
from ojd.types import Sample

LineFn = Callable[[dict[str, Any]], None]


class Reference(NamedTuple):
  """The latest labels that the student learned from."""

  classes: np.ndarray | None = None  # [H, W] uint8
  t: int | None = None  # their frame


class Outputs:
  """Metrics, pictures and curves of one run."""

  def __init__(
    self,
    job: build.Job,
    path: pathlib.Path,
    start: checkpoint_lib.Snapshot | None = None,
    *,
    trackers: trackers.Trackers = trackers.NONE,
    more_sinks: Sequence[sinks.Sink] = (),
    line_fn: LineFn = lambda line: None,
  ):
    """Opens the files in the workdir.

    Args:
      job: what to run.
      path: the workdir.
      start: the snapshot to start from; None for the first frame.
      trackers: get the metrics; `close_trackers` closes them.
      more_sinks: get the frames beside the job's own sinks; closed at the end.
      line_fn: called with every line of the metrics.
    """
    config, spec = job.config, job.stream.spec
    self._fps, self._trackers, self._line_fn = spec.fps, trackers, line_fn
    first_t = start.t if start else 0
    self._metrics = writers.MetricsWriter(
      path / workdir.METRICS, start.stats.num_frames if start else 0
    )
    place = sinks.Place(
      path, spec.fps, job.groups.names, spec.source_size, first_t
    )
    self._sinks = [*sinks.open_sinks(place, config), *more_sinks]
    self._keys: sinks.KeyPictures | None = None
    if config.overlay:
      self._keys = sinks.KeyPictures(
        path,
        job.groups.names,
        start=first_t,
        num_keys=start.stats.num_keys if start else 0,
      )

  @property
  def wants_pictures(self) -> bool:
    """Whether `write` uses more of a frame than its record."""
    return bool(self._sinks)

  @property
  def wants_keys(self) -> bool:
    """Whether some key frames are shown before and after learning."""
    return self._keys is not None

  def wants_key(self, index: int) -> bool:
    """Whether key frame number `index` is shown before and after learning."""
    return self._keys is not None and self._keys.is_due(index)

  def write_key(self, index: int, key: overlay.KeyFrame) -> None:
    """Takes a key frame that `wants_key` asks for."""
    self._keys.put(index, key)

  def write(
    self,
    record: writers.FrameRecord,
    *,
    sample: Sample,
    classes: np.ndarray,
    truth: np.ndarray | None,
    reference: Reference,
    miou: float | None,
  ) -> str:
    """Writes a frame.

    Args:
      record: its line of the metrics.
      sample: of the stream.
      classes: [H, W] uint8, the student's.
      truth: [H, W] uint8, the stream's own labels, if there are any.
      reference: shown if there is no truth.
      miou: of the run so far; None if nothing was evaluated.

    Returns:
      The problem of a tracker; "" if there is none.
    """
    line = record.to_json()
    self._metrics.write(line)
    self._line_fn(line)
    problem = self._trackers.write(line | {"miou": miou})
    if self._sinks:
      images = self._images(record, sample, classes, truth, reference, miou)
      for sink in self._sinks:
        sink.put(images)
    return problem

  def _images(self, record, sample, classes, truth, reference, miou):
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
      is_key=record.is_key,
      num_updates=record.num_updates,
      stride=record.stride,
      miou=miou,
      reference_title=title,
      seconds=seconds,
    )
    return overlay.FrameImages(sample.frame, expected, classes, caption)

  def cut(self) -> Callable[[], None]:
    """Lets a resumed run continue here; returns how to wait for that."""
    waits = [file.cut() for file in self._all_sinks()]
    return lambda: [wait() for wait in waits]

  def close(self) -> None:
    """Closes all but the trackers, even if one of them fails."""
    with contextlib.ExitStack() as stack:
      for file in (self._metrics, *self._all_sinks()):
        stack.callback(file.close)

  def close_trackers(self) -> str:
    """Closes the trackers; returns their problems, or ""."""
    return self._trackers.close()

  def _all_sinks(self):
    return self._sinks + ([] if self._keys is None else [self._keys])


def reference_of(snapshot: checkpoint_lib.Snapshot | None) -> Reference:
  """The latest labels at a snapshot of a run."""
  if snapshot is None:
    return Reference()
  return Reference(snapshot.reference, snapshot.reference_t)
