"""The counts of a run in Prometheus' text format, version 0.0.4."""

import math

from ojd.run.live_board import ENDED, Counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(counts: Counts) -> str:
  """All metrics; zeros before the first frame.

  An accuracy that was not measured is left out.
  """
  p = counts.progress
  counters = (
    ("frames", "Frames answered.", p and p.num_frames - p.num_skipped),
    ("key_frames", "Frames that the student learned from.", p and p.num_keys),
    ("updates", "Gradient steps of the student.", p and p.num_updates),
    (
      "teacher_failures",
      "Requests that the teacher had no answer to.",
      p and p.num_teacher_failures,
    ),
    ("frames_skipped", "Frames that could not be read.", p and p.num_skipped),
  )
  gauges = (
    ("miou", "Mean IoU of the run so far.", p and p.miou),
    ("stride", "Frames between teacher calls.", p.stride if p else 0),
    ("fps", "Frames a second in the last seconds.", counts.fps),
    ("running", "1 until the run is over.", int(counts.state not in ENDED)),
  )
  lines = []
  for name, text, value in counters:
    lines += _family(f"ojd_{name}_total", "counter", text)
    lines.append(f"ojd_{name}_total {_number(value or 0)}")
  for name, text, value in gauges:
    if value is not None:
      lines += _family(f"ojd_{name}", "gauge", text)
      lines.append(f"ojd_{name} {_number(value)}")
  name = "ojd_stage_seconds_total"
  lines += _family(name, "counter", "Seconds spent, by stage.")
  for stage, seconds in sorted(p.seconds.items() if p else ()):
    lines.append(f'{name}{{stage="{_escape(stage)}"}} {_number(seconds)}')
  return "\n".join(lines) + "\n"


def _family(name, kind, text):
  return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _number(x):
  if math.isnan(x):
    return "NaN"
  if math.isinf(x):
    return "+Inf" if x > 0 else "-Inf"
  return repr(x)


def _escape(text):
  text = text.replace("\\", "\\\\").replace('"', '\\"')
  return text.replace("\n", "\\n")
