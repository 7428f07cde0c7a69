"""The records that describe a place, and the routes through it."""

import bisect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ojd.streams.synthetic import draws
from ojd.streams.synthetic.camera import Lens, Motion


class PlaceKey(NamedTuple):
  """All that a place depends on."""

  scene: str
  seed: int
  turn: int  # how many cuts came before it


class Route(NamedTuple):
  """A polyline on the ground."""

  points: tuple[tuple[float, float], ...]  # (x, z) in metres
  lengths: tuple[float, ...]  # from the start to each point


class Trip(NamedTuple):
  """One actor's way through the place."""

  kind: str  # a class name, or "rider" for a bicycle with its person
  looks: tuple  # appearance; a rider's bicycle and person
  route: Route
  start: float  # seconds
  speed: float  # metres a second
  slow_at: float  # seconds after the start at which the actor slows down
  slow_for: float  # seconds lost by that
  axle: float  # half the distance between the points that keep to the route


class Flow(NamedTuple):
  """A source of trips: number n of them starts at about n * headway."""

  headway: float  # seconds
  lead: float  # most seconds that a trip starts before n * headway
  linger: float  # most seconds that a trip ends after n * headway
  draw: Callable[[Any, int, float], tuple[Trip, ...]]


class Placed(NamedTuple):
  """An actor at one moment."""

  kind: str
  looks: tuple
  x: float
  z: float
  heading: float
  distance: float  # covered so far in metres; gaits and wheels follow it
  speed: float  # usual metres a second
  pace: float  # of now, as a share of the usual speed


class Place(NamedTuple):
  """A scene of the world with its own ground, camera, light and actors."""

  key: PlaceKey
  lens: Lens
  motion: Motion
  sun: tuple[float, float]  # shadow's end on the ground, for a metre of height
  shade: float  # how dark shadows are, 0..1
  weather: str  # clear, overcast, rain, snow
  haze: draws.Colour
  clarity: float  # metres in which haze takes 63 per cent
  plan: Any  # the ground plan that the backdrop paints
  props: tuple
  lamps: tuple[tuple[float, float], ...]  # ground points below lamps
  flows: tuple[Flow, ...]
  epoch: float  # seconds on the flows' clock when the stream starts
  players: tuple


def make_route(points) -> Route:
  """Measures a polyline."""
  lengths = [0.0]
  for (x0, z0), (x1, z1) in zip(points, points[1:], strict=False):
    lengths.append(lengths[-1] + math.hypot(x1 - x0, z1 - z0))
  return Route(tuple(points), tuple(lengths))


def corner(start, turn, end, radius: float, steps: int = 10):
  """Returns points of a line from start to end with a round turn between."""

  def towards(target):
    dx, dz = target[0] - turn[0], target[1] - turn[1]
    share = radius / math.hypot(dx, dz)
    return turn[0] + dx * share, turn[1] + dz * share

  a, c = towards(start), towards(end)
  points = [start]
  for i in range(steps + 1):
    s = i / steps
    points.append(
      tuple(
        (1 - s) ** 2 * p + 2 * s * (1 - s) * q + s**2 * r
        for p, q, r in zip(a, turn, c, strict=True)
      )
    )
  return [*points, end]


def along(route: Route, distance: float) -> tuple[float, float]:
  """Returns the point at a distance; the ends go on straight."""
  last = len(route.points) - 2
  i = min(max(bisect.bisect_right(route.lengths, distance) - 1, 0), last)
  (x0, z0), (x1, z1) = route.points[i], route.points[i + 1]
  share = (distance - route.lengths[i]) / (
    route.lengths[i + 1] - route.lengths[i]
  )
  return x0 + (x1 - x0) * share, z0 + (z1 - z0) * share


def where(trip: Trip, time: float) -> Placed | None:
  """Returns the actor of a trip at a time, or None outside its trip."""
  elapsed = time - trip.start
  distance, pace = trip.speed * elapsed, 1.0
  if trip.slow_for > 0.0:
    # The slope of smoothstep is 1.5 at most, so this halts but never reverses.
    span = 1.5 * trip.slow_for
    x = (elapsed - trip.slow_at) / span
    distance -= trip.speed * trip.slow_for * draws.smoothstep(x)
    if 0.0 < x < 1.0:
      pace = (1.0 - 2.0 * x) ** 2
  if elapsed < 0.0 or distance > trip.route.lengths[-1]:
    return None
  x0, z0 = along(trip.route, distance - trip.axle)
  x1, z1 = along(trip.route, distance + trip.axle)
  return Placed(
    trip.kind, trip.looks, (x0 + x1) / 2, (z0 + z1) / 2,
    math.atan2(z1 - z0, x1 - x0), distance, trip.speed, pace,
  )  # fmt: skip
