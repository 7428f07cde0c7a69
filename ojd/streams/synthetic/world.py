"""The camera, the records that describe a place, and the trips through it.

World: metres, x to the right, y up, z away from the eye, ground at y = 0.
Plane: the picture plane of a camera that looks along z, measured in heights of
the view: u = focal x / z, v = horizon + focal (eye - y) / z, v = 0 at the top.
Pan, zoom and shake slide a window over that plane, so that a backdrop painted
on the plane and the actors projected onto it move as one.
"""

import bisect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ojd.streams.synthetic import bodies, cycles, draws, vehicles

# A wider picture sees a lower strip of the same world: no actor may start in
# view, however wide the picture is.
MAX_ASPECT = 1.8
PAN = 0.17  # how far the window leaves the middle, in plane units
TILT = 0.012
_SHAKE = 0.003
MARGIN = 0.04
EDGE_U = MAX_ASPECT / 2 + PAN + MARGIN  # nothing beyond is ever seen
EDGE_V = TILT + MARGIN
_CORNER_STEPS = 10


class Lens(NamedTuple):
  """The fixed part of a place's camera."""

  eye: float  # metres above the ground
  focal: float  # heights of the view
  horizon: float  # v of the horizon


class Motion(NamedTuple):
  """How the camera of a place moves, as sums of sines."""

  pan: tuple[tuple[float, float, float], ...]
  zoom: tuple[tuple[float, float, float], ...]
  shake_u: tuple[tuple[float, float, float], ...]
  shake_v: tuple[tuple[float, float, float], ...]


class Window(NamedTuple):
  """The part of the plane that is in the picture."""

  left: float
  top: float
  width: float
  height: float


class View(NamedTuple):
  """From world to pixels: column ax + k x / z, row ay + k (eye - y) / z."""

  k: float
  ax: float
  ay: float
  eye: float


def draw_motion(rng) -> Motion:
  """Draws the movements of a camera held by hand or on a tripod."""
  return Motion(
    pan=draws.waves(rng, PAN - 0.01, (0.031, 0.083)),
    zoom=draws.waves(rng, 1.0, (0.023, 0.061)),
    shake_u=draws.waves(rng, _SHAKE, (0.7, 1.3, 2.9)),
    shake_v=draws.waves(rng, _SHAKE, (0.9, 1.7, 3.1)),
  )


def view_size(aspect: float) -> tuple[float, float]:
  """Returns width and height in plane units of the unzoomed view."""
  width = min(aspect, MAX_ASPECT)
  return width, width / aspect


def window_at(motion: Motion, time: float, aspect: float) -> Window:
  """Returns the window at a time in seconds."""
  width, height = view_size(aspect)
  zoom = 1.13 + 0.13 * draws.sway(motion.zoom, time)
  width, height = width / zoom, height / zoom
  middle_u = draws.sway(motion.pan, time) + draws.sway(motion.shake_u, time)
  # Zooming in keeps to the ground, where the actors are.
  middle_v = 0.5 + 0.5 * (1.0 - 1.0 / zoom) * 0.5
  middle_v += draws.sway(motion.shake_v, time)
  return Window(middle_u - width / 2, middle_v - height / 2, width, height)


def view_at(lens: Lens, window: Window, height: int) -> View:
  """Returns the projection for a picture of the given height in pixels."""
  scale = height / window.height
  return View(
    k=lens.focal * scale,
    ax=-window.left * scale,
    ay=(lens.horizon - window.top) * scale,
    eye=lens.eye,
  )


def edge_x(lens: Lens, z: float, half_length: float) -> float:
  """Returns the x beyond which a thing at depth z is out of every view."""
  return EDGE_U * z / lens.focal + half_length


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


def corner(start, turn, end, radius: float):
  """Returns points of a line from start to end with a round turn between."""

  def towards(target):
    dx, dz = target[0] - turn[0], target[1] - turn[1]
    share = radius / math.hypot(dx, dz)
    return turn[0] + dx * share, turn[1] + dz * share

  a, c = towards(start), towards(end)
  points = [start]
  for i in range(_CORNER_STEPS + 1):
    s = i / _CORNER_STEPS
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


def walker(rng, points, start: float, *, jog: float = 0.15) -> Trip:
  """Returns a person's trip; some run, some halt on the way."""
  runs = rng.random() < jog
  speed = draws.between(rng, 2.4, 3.1) if runs else draws.between(rng, 1.1, 1.6)
  look = bodies.draw_look(rng)
  route = make_route(points)
  halts = not runs and rng.random() < 0.3
  duration = route.lengths[-1] / speed
  return Trip(
    "person", (look,), route, start, speed,
    slow_at=duration * draws.between(rng, 0.3, 0.6),
    slow_for=draws.between(rng, 1.5, 3.0) if halts else 0.0,
    axle=0.12,
  )  # fmt: skip


def beside(rng, trip: Trip, shift: float, depth: float) -> Trip:
  """Returns a companion who keeps step with the trip, beside it."""
  points = [(x + shift, z + depth) for x, z in trip.route.points]
  return trip._replace(looks=(bodies.draw_look(rng),), route=make_route(points))


def dog(rng, points, start: float, speed: float | None = None) -> Trip:
  """Returns a dog's trip."""
  if speed is None:
    speed = draws.between(rng, 1.4, 2.8)
  return Trip(
    "dog", (cycles.draw_dog_look(rng),), make_route(points), start,
    speed, 0.0, 0.0, 0.2,
  )  # fmt: skip


def rider(rng, points, start: float) -> Trip:
  """Returns the trip of a bicycle with its rider."""
  looks = (cycles.draw_bicycle_look(rng), bodies.draw_look(rng))
  # A child's legs would not reach the pedals.
  grown = looks[1]._replace(
    height=max(1.6, looks[1].height), bag="none", legs="trousers"
  )
  return Trip(
    "rider", (looks[0], grown), make_route(points), start,
    draws.between(rng, 3.2, 4.6), 0.0, 0.0, 0.5,
  )  # fmt: skip


def vehicle(rng, kind, route, start: float, speed: float) -> Trip:
  """Returns a vehicle's trip."""
  look = vehicles.draw_vehicle_look(rng, kind)
  axle = 0.3 * look.length
  return Trip(kind, (look,), route, start, speed, 0.0, 0.0, axle)


def across(lens: Lens, z0: float, z1: float, way: int, spare: float):
  """Returns the two ends of a way from one side of the view to the other."""
  return [
    (-way * edge_x(lens, z0, spare), z0),
    (way * edge_x(lens, z1, spare), z1),
  ]


def walkers_across(
  lens: Lens, near: float, far: float, way: int, headway: float,
  *, dogs: int = 0, pairs: float = 0.2, jog: float = 0.15,
) -> Flow:  # fmt: skip
  """Returns people who cross the view between two depths.

  Args:
    lens: of the place.
    near: least depth.
    far: greatest depth.
    way: 1 to the right, -1 to the left.
    headway: seconds between them.
    dogs: every how many-th walks a dog; 0 for none.
    pairs: share of them who walk with somebody.
    jog: share of them who run.
  """

  def draw(rng, number: int, time: float):
    z0 = draws.between(rng, near, far)
    z1 = min(far, max(near, z0 + draws.between(rng, -0.8, 0.8)))
    points = across(lens, z0, z1, way, 1.0)
    start = time + draws.between(rng, 0.0, 0.7) * headway
    first = walker(rng, points, start, jog=jog)
    if dogs and number % dogs == 0:
      # The lead is short, and the dog enters after the walker or well ahead.
      ahead = [(x + way * 0.9, z - 0.25) for x, z in points]
      ahead[0] = (ahead[0][0] - way * 0.9, ahead[0][1])
      first = first._replace(slow_for=0.0, speed=min(first.speed, 1.6))
      return first, dog(rng, ahead, start - 0.5, first.speed)
    if rng.random() < pairs:
      return first, beside(rng, first, -0.15 * way, 0.55)
    return (first,)

  slowest = 2.0 * edge_x(lens, far, 1.5) / 1.1 + 4.0
  return Flow(headway, 0.6, slowest + headway, draw)


def riders_across(lens: Lens, z: float, way: int, headway: float) -> Flow:
  """Returns bicycles that cross the view at a depth."""

  def draw(rng, number: int, time: float):
    del number  # each is drawn alike
    start = time + draws.between(rng, 0.0, 0.6) * headway
    depth = z + draws.between(rng, -0.15, 0.15)
    return (rider(rng, across(lens, depth, depth, way, 1.3), start),)

  slowest = 2.0 * edge_x(lens, z + 0.2, 1.5) / 3.2
  return Flow(headway, 0.0, slowest + headway, draw)


def walkers_on(points, headway: float, spread: float) -> Flow:
  """Returns people who follow a polyline, spread sideways, both ways."""
  length = make_route(points).lengths[-1]

  def draw(rng, number: int, time: float):
    shift = draws.between(rng, -spread, spread)
    moved = [(x + shift, z + shift) for x, z in points]
    if number % 2:
      moved.reverse()
    return (walker(rng, moved, time),)

  return Flow(headway, 0.0, length / 1.1 + 5.0, draw)
