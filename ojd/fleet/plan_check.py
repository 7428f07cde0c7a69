"""The simulation beside a fleet that ran.

Reads DIR/streams/NAME/, one workdir a stream. Its key frames say in
metrics.jsonl `ms_wait`, from the request until the teacher began, and
`ms_teacher`, the time of the batch that the frame was in (of `batch` frames; 1
if it is missing). The same streams are simulated with one teacher from the same
first frame on, for as long, each with its own strides and times, so that only
the queue is checked. Students learn one after another, as in one program; their
times were measured there, so that nothing else slows them.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from ojd.errors import UserError
from ojd.fleet import plan, simulation
from ojd.fleet import trace as trace_lib
from ojd.fleet.simulation import Devices
from ojd.fleet.trace import KeyFrames, Trace
from ojd.report import run_results

_NEEDED = (
  *("stride", "num_updates", "miou_before", "miou_after"),
  *("ms_wait", "ms_teacher", "ms_learn"),
)


class Stream(NamedTuple):
  """A stream of the fleet."""

  trace: Trace  # as if every frame had been alone in its batch
  first: float  # seconds, when it asked for the first time
  seconds: float  # that it was played
  waits: np.ndarray  # [K] float64, seconds
  working: float  # seconds of the teacher's


class Side(NamedTuple):
  """Measured or simulated numbers."""

  key_frames: int
  mean_wait: float  # seconds
  p50: float
  p95: float
  busy: float  # share of the teacher's time


def read(
  output: pathlib.Path, more: float = 1.0, fps: float | None = None
) -> list[Stream]:
  """The streams of a fleet's folder.

  Args:
    output: the folder.
    more: time of a further frame in a batch, of one alone.
    fps: of streams whose files do not say it.
  """
  folder = output / "streams"
  found = sorted(folder.iterdir()) if folder.is_dir() else []
  found = [path for path in found if path.is_dir()]
  if not found:
    raise UserError(
      f"--check={output}: no fleet ran here, {folder} holds no stream"
    )
  return [_read_stream(path, more, fps) for path in found]


def compare(
  streams: list[Stream], batch: int, more: float
) -> tuple[Side, Side]:
  """Measured and simulated numbers of the same streams.

  Args:
    streams: of `read`.
    batch: most frames that the teacher took at once.
    more: time of a further one in a batch, of one alone.
  """
  seconds = max(stream.seconds for stream in streams)
  traces = [stream.trace for stream in streams]
  which = range(len(streams))
  outcome = simulation.run(
    traces,
    which,
    [(stream.first, 0) for stream in streams],
    simulation.Pool(1, batch, more),
    simulation.Span(0.0, seconds),
    Devices(traces, which, len(streams)),
  )
  waits = np.concatenate([stream.waits for stream in streams])
  busy = sum(stream.working for stream in streams) / seconds
  return _side(waits, busy), _side(outcome.waits, outcome.busy)


def _side(waits, busy):
  p50, p95 = np.quantile(waits, (0.5, 0.95)) if len(waits) else (0.0, 0.0)
  mean = waits.mean() if len(waits) else 0.0
  return Side(len(waits), float(mean), float(p50), float(p95), float(busy))


def text(streams: list[Stream], sides: tuple[Side, Side]) -> str:
  """Both side by side, for a terminal."""
  rows = [["", "key frames", "wait mean", "p50", "p95 ms", "teacher busy"]]
  for name, side in zip(("measured", "simulated"), sides, strict=True):
    waits = (side.mean_wait, side.p50, side.p95)
    times = [f"{1e3 * x:.1f}" for x in waits]
    rows.append([name, f"{side.key_frames}", *times, f"{side.busy:.1%}"])
  seconds = max(stream.seconds for stream in streams)
  head = f"{len(streams)} streams of {seconds:.1f} s, one teacher"
  return f"{head}\n{plan.aligned(rows)}"


def _read_stream(path, more, fps):
  run_results.check(path)
  run = run_results.read(path)
  fps = trace_lib.frame_rate(run.config, path, fps)
  rows = trace_lib.key_rows(run.rows, _NEEDED, path)
  if not rows:
    raise UserError(f"{path}: it has no key frame that was answered")
  # Of a late answer the line is that of the frame at which it was learned.
  asked = np.array([row.get("key_t", row["t"]) for row in rows])
  spent, waits = (_column(rows, name) for name in ("ms_teacher", "ms_wait"))
  batch = np.array([row.get("batch", 1) for row in rows])
  keys = _keys(rows, asked, spent / (1 + (batch - 1) * more))
  return Stream(
    Trace(fps, 0.0, keys, {}),
    first=asked[0] / fps,
    seconds=(run.rows[-1]["t"] + 1) / fps,
    waits=waits / 1e3,
    working=float((spent / batch).sum() / 1e3),
  )


def _keys(rows, asked, ms_teacher):
  """Key frames whose intervals are those of streams that never wait."""
  stride = _column(rows, "stride").astype(np.int64)
  before, after = (_column(rows, f"miou_{x}") for x in ("before", "after"))
  return KeyFrames(
    interval=(asked // stride + 1) * stride - asked,
    stride=stride,
    num_updates=_column(rows, "num_updates").astype(np.int64),
    ms_teacher=ms_teacher,
    ms_learn=_column(rows, "ms_learn"),
    miou_before=before,
    miou_after=after,
    miou_next=np.roll(before, -1),
  )


def _column(rows, name):
  return np.array([row[name] for row in rows], np.float64)
