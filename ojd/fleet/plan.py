"""How many teachers fleets of many sizes need, by simulation."""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ojd.errors import UserError
from ojd.fleet import simulation, timeline
from ojd.fleet.trace import Trace

QUANTILE = 0.95  # of the latency that is held
# A small fleet is played time and again: the moments at which its streams began
# stay with it, as key frames are a whole number of frames apart.
_LEAST_STREAMS = 2000  # in all simulations of a point together
_KEY_FRAMES = 20_000  # looked at for a point, or more
_WARM_UP, _LEAST, _MOST = 3, 2, 10  # intervals between key frames
_TOLERANCE = 0.005  # of the teachers needed, where they are many
_ROUNDING = 1e-9  # of sums of times
# Teachers of a sweep, over those that keep up.
_FACTORS = (
  *(0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95),
  *(1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0),
)


class Scene(NamedTuple):
  """Recorded streams of one kind."""

  name: str
  traces: tuple[Trace, ...]


@dataclasses.dataclass(frozen=True)
class Terms:
  """The terms of a plan."""

  latency: float = 0.2  # seconds from request to answer, for 95%
  batch: int = 1  # frames that a teacher takes at once
  more: float = 1.0  # time of a further one in a batch, of one alone
  streams_per_device: int = 0  # that learn in turn; 0: each at once
  seed: int = 0


class Alone(NamedTuple):
  """A scene without any queue."""

  interval: float  # seconds between key frames
  demand: float  # teachers that a stream keeps busy
  latency: float  # seconds, QUANTILE of the teacher's own times
  predicting: float  # devices that its frames keep busy
  learning: float  # devices that its updates keep busy
  lost: float  # mIoU, while the teacher works and the student learns


class Point(NamedTuple):
  """The result for a number of streams and a number of teachers."""

  scene: str
  streams: int
  teachers: int
  per_1000: float  # teachers
  load: float  # the teachers' work without waiting, of their capacity
  mean_wait: float  # seconds from request until a teacher begins
  p50: float  # seconds from request to answer
  p95: float
  p99: float
  busy: float  # share of the teachers' time
  lost: float  # mIoU points on average, to waiting
  devices_per_1000: float  # kept busy by prediction and learning
  key_frames: int  # that this is of
  events: int  # simulated for it


def alone(scene: Scene, terms: Terms) -> Alone:
  """What a scene asks for without any waiting."""
  lines = [timeline.timeline(trace) for trace in scene.traces]
  service = np.concatenate([line.service for line in lines])
  return Alone(
    interval=timeline.interval(lines),
    demand=timeline.demand(lines, terms.batch, terms.more),
    latency=float(np.quantile(service, QUANTILE)),
    predicting=float(np.mean([*map(timeline.predict_load, scene.traces)])),
    learning=float(np.mean([sum(x.learn) / x.period for x in lines])),
    lost=float(np.mean([*map(timeline.unqueued_loss, lines)])),
  )


def point(
  scene: Scene, num_streams: int, num_teachers: int, terms: Terms
) -> Point:
  """Simulates a fleet, a small one several times."""
  facts = alone(scene, terms)
  times = max(1, math.ceil(_LEAST_STREAMS / num_streams))
  seen = _KEY_FRAMES / (times * num_streams)
  seen = min(max(seen, _LEAST), _MOST) * facts.interval
  warm_up = _WARM_UP * facts.interval
  outcomes = [
    simulation.simulate(
      scene.traces,
      num_streams,
      simulation.Pool(num_teachers, terms.batch, terms.more),
      simulation.Span(warm_up, warm_up + seen),
      (terms.seed, num_streams, turn),
      streams_per_device=terms.streams_per_device,
    )
    for turn in range(times)
  ]
  return _point(scene, num_streams, num_teachers, facts, outcomes)


def _point(scene, num_streams, num_teachers, facts, outcomes):
  latencies = np.concatenate([o.latencies for o in outcomes])
  waits = np.concatenate([o.waits for o in outcomes])
  quantiles = np.quantile(latencies, (0.5, QUANTILE, 0.99))
  mean = lambda name: float(np.mean([getattr(o, name) for o in outcomes]))
  learning = mean("learning") / num_streams
  return Point(
    scene.name,
    num_streams,
    num_teachers,
    1e3 * num_teachers / num_streams,
    facts.demand * num_streams / num_teachers,
    float(waits.mean()),
    *map(float, quantiles),
    busy=mean("busy"),
    # Not the -0.0 of sums in another order.
    lost=round(100 * mean("lost_waiting"), 6) + 0.0,
    devices_per_1000=1e3 * (facts.predicting + learning),
    key_frames=len(latencies),
    events=sum(o.num_events for o in outcomes),
  )


def least_teachers(scene: Scene, num_streams: int, terms: Terms) -> int:
  """The least teachers that keep up with all key frames."""
  return max(1, math.ceil(alone(scene, terms).demand * num_streams - 1e-9))


def needed(scene: Scene, num_streams: int, terms: Terms) -> Point:
  """The fewest teachers that keep up within the latency.

  Large numbers are found to half a percent.
  """
  facts = alone(scene, terms)
  if facts.latency > terms.latency:
    raise UserError(
      f"--latency={terms.latency:g}: of {scene.name} the teacher alone takes "
      f"{facts.latency:.3f} s for {QUANTILE:.0%} of them; ask for more"
    )
  low = least_teachers(scene, num_streams, terms)
  found = point(scene, num_streams, low, terms)
  step = max(1, math.ceil(0.01 * low))
  while not _holds(found, terms):
    low, high = found.teachers, found.teachers + step
    if low > num_streams:
      raise UserError(
        f"--latency={terms.latency:g} is not held for {scene.name} by a "
        "teacher for every stream; ask for more"
      )
    found = point(scene, num_streams, high, terms)
    step *= 2
  while found.teachers - low > max(1, _TOLERANCE * found.teachers):
    middle = point(scene, num_streams, (low + found.teachers) // 2, terms)
    if _holds(middle, terms):
      found = middle
    else:
      low = middle.teachers
  return found


def _holds(found, terms):
  return found.p95 <= terms.latency * (1 + _ROUNDING)


def by_size(
  scenes: Iterable[Scene],
  sizes: Iterable[int],
  terms: Terms,
  progress_fn: Callable[[str], None] = lambda words: None,
) -> list[Point]:
  """The teachers needed by every scene at every size.

  Args:
    scenes: the kinds of streams.
    sizes: numbers of streams.
    terms: of the plan.
    progress_fn: called with the simulation at hand.
  """
  points, sizes = [], list(sizes)
  for scene in scenes:
    for num_streams in sizes:
      progress_fn(f"{scene.name}: {num_streams} streams")
      points.append(needed(scene, num_streams, terms))
  return points


def sweep(
  scenes: Iterable[Scene],
  num_streams: int,
  terms: Terms,
  progress_fn: Callable[[str], None] = lambda words: None,
) -> list[Point]:
  """Every scene at one size, from half the teachers that keep up to twice."""
  points = []
  for scene in scenes:
    progress_fn(f"{scene.name}: {num_streams} streams, few to many teachers")
    least = alone(scene, terms).demand * num_streams
    numbers = {max(1, round(factor * least)) for factor in _FACTORS}
    points += [point(scene, num_streams, k, terms) for k in sorted(numbers)]
  return points


_HEADER = (
  *("scene", "streams", "teachers", "per 1,000"),
  *("answer p50", "p95", "p99 s", "busy", "mIoU lost"),
  *("devices per 1,000", "events"),
)


def text(points: list[Point]) -> str:
  """The table for a terminal."""
  return aligned(
    [
      _HEADER,
      *(
        (
          *(p.scene, f"{p.streams:,}", f"{p.teachers:,}", f"{p.per_1000:.1f}"),
          *(f"{p.p50:.3f}", f"{p.p95:.3f}", f"{p.p99:.3f}", f"{p.busy:.1%}"),
          *(f"{p.lost:.2f}", f"{p.devices_per_1000:,.0f}", f"{p.events:,}"),
        )
        for p in points
      ),
    ]
  )


def aligned(rows: Sequence[Sequence[str]]) -> str:
  """Cells in columns, the first to the left and the others to the right."""
  first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(
      [row[0].ljust(first)]
      + [x.rjust(w) for x, w in zip(row[1:], widths, strict=True)]
    )
    for row in rows
  )


def in_words(facts: dict[str, Alone]) -> str:
  """Facts that hold with any number of teachers; a line for each scene."""
  return "\n".join(
    f"{scene}: a key frame every {fact.interval:.2f} s, the work of "
    f"{1e3 * fact.demand:.1f} teachers per 1,000 streams; with a teacher for "
    f"every stream 95% are answered in {fact.latency:.3f} s, and the student "
    f"is {100 * fact.lost:.2f} points below one that learns at once"
    for scene, fact in facts.items()
  )


def write_csv(kinds: dict[str, list[Point]], path: pathlib.Path) -> None:
  """A line for each point, beginning with its kind of plan."""
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["plan", *Point._fields])
    for kind, points in kinds.items():
      writer.writerows([kind, *map(_rounded, p)] for p in points)


def _rounded(value):
  return round(value, 5) if isinstance(value, float) else value
