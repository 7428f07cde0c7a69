"""The counts of a run for Prometheus."""

from collections.abc import Iterator

import prometheus_client
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import Metric

from ojd.serve.display import ENDED, Counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(counts: Counts) -> bytes:
  """All metrics as text; zeros before the first frame.

  An accuracy that was not measured is left out.
  """
  registry = prometheus_client.CollectorRegistry()
  registry.register(_Collector(counts))
  return prometheus_client.generate_latest(registry)


class _Collector:
  """The metrics of one moment."""

  def __init__(self, counts):
    self._counts = counts

  def collect(self) -> Iterator[Metric]:
    """What a registry asks for."""
    p = self._counts.progress
    of = lambda name: getattr(p, name) if p else 0
    frames = of("num_frames") - of("num_skipped")
    failures = of("num_teacher_failures")
    yield Counter("ojd_frames", "Frames answered.", frames)
    text = "Frames that the student learned from."
    yield Counter("ojd_key_frames", text, of("num_keys"))
    text = "Gradient steps of the student."
    yield Counter("ojd_updates", text, of("num_updates"))
    text = "Requests that the teacher had no answer to."
    yield Counter("ojd_teacher_failures", text, failures)
    text = "Frames that could not be read."
    yield Counter("ojd_frames_skipped", text, of("num_skipped"))
    if p and p.miou is not None:
      yield Gauge("ojd_miou", "Mean IoU of the run so far.", p.miou)
    yield Gauge("ojd_stride", "Frames between teacher calls.", of("stride"))
    text = "Frames a second in the last seconds."
    yield Gauge("ojd_fps", text, self._counts.fps)
    is_running = self._counts.state not in ENDED
    yield Gauge("ojd_running", "1 until the run is over.", int(is_running))
    text = "Seconds spent, by stage."
    stages = Counter("ojd_stage_seconds", text, labels=["stage"])
    for stage, seconds in sorted(p.seconds.items() if p else ()):
      stages.add_metric([stage], seconds)
    yield stages
