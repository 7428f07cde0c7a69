"""The flows that places are made of: walkers, riders, dogs, vehicles."""

from ojd.streams.synthetic import bodies, cycles, draws, vehicles, world


def walker(rng, points, start: float, *, jog: float = 0.15) -> world.Trip:
  """Returns a person's trip; some run, some halt on the way."""
  runs = rng.random() < jog
  speed = draws.between(rng, 2.4, 3.1) if runs else draws.between(rng, 1.1, 1.6)
  look = bodies.draw_look(rng)
  route = world.make_route(points)
  halts = not runs and rng.random() < 0.3
  duration = route.lengths[-1] / speed
  return world.Trip(
    "person", (look,), route, start, speed,
    slow_at=duration * draws.between(rng, 0.3, 0.6),
    slow_for=draws.between(rng, 1.5, 3.0) if halts else 0.0,
    axle=0.12,
  )  # fmt: skip


def beside(rng, trip: world.Trip, shift: float, depth: float) -> world.Trip:
  """Returns a companion who keeps step with the trip, beside it."""
  points = [(x + shift, z + depth) for x, z in trip.route.points]
  return trip._replace(
    looks=(bodies.draw_look(rng),), route=world.make_route(points)
  )


def dog(rng, points, start: float, speed: float | None = None) -> world.Trip:
  """Returns a dog's trip."""
  if speed is None:
    speed = draws.between(rng, 1.4, 2.8)
  return world.Trip(
    "dog", (cycles.draw_dog_look(rng),), world.make_route(points), start,
    speed, 0.0, 0.0, 0.2,
  )  # fmt: skip


def rider(rng, points, start: float) -> world.Trip:
  """Returns the trip of a bicycle with its rider."""
  looks = (cycles.draw_bicycle_look(rng), bodies.draw_look(rng))
  # A child's legs would not reach the pedals.
  grown = looks[1]._replace(
    height=max(1.6, looks[1].height), bag="none", legs="trousers"
  )
  return world.Trip(
    "rider", (looks[0], grown), world.make_route(points), start,
    draws.between(rng, 3.2, 4.6), 0.0, 0.0, 0.5,
  )  # fmt: skip


def vehicle(rng, kind, route, start: float, speed: float) -> world.Trip:
  """Returns a vehicle's trip."""
  look = vehicles.draw_vehicle_look(rng, kind)
  axle = 0.3 * look.length
  return world.Trip(kind, (look,), route, start, speed, 0.0, 0.0, axle)


def across(lens: world.Lens, z0: float, z1: float, way: int, spare: float):
  """Returns the two ends of a way from one side of the view to the other."""
  return [
    (-way * world.edge_x(lens, z0, spare), z0),
    (way * world.edge_x(lens, z1, spare), z1),
  ]


def walkers_across(
  lens: world.Lens, near: float, far: float, way: int, headway: float,
  *, dogs: int = 0, pairs: float = 0.2, jog: float = 0.15,
) -> world.Flow:  # fmt: skip
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

  slowest = 2.0 * world.edge_x(lens, far, 1.5) / 1.1 + 4.0
  return world.Flow(headway, 0.6, slowest + headway, draw)


def riders_across(
  lens: world.Lens, z: float, way: int, headway: float
) -> world.Flow:
  """Returns bicycles that cross the view at a depth."""

  def draw(rng, number: int, time: float):
    del number  # each is drawn alike
    start = time + draws.between(rng, 0.0, 0.6) * headway
    depth = z + draws.between(rng, -0.15, 0.15)
    return (rider(rng, across(lens, depth, depth, way, 1.3), start),)

  slowest = 2.0 * world.edge_x(lens, z + 0.2, 1.5) / 3.2
  return world.Flow(headway, 0.0, slowest + headway, draw)


def walkers_on(points, headway: float, spread: float, jog=0.15) -> world.Flow:
  """Returns people who follow a polyline, spread sideways, both ways."""
  length = world.make_route(points).lengths[-1]

  def draw(rng, number: int, time: float):
    shift = draws.between(rng, -spread, spread)
    moved = [(x + shift, z + shift) for x, z in points]
    if number % 2:
      moved.reverse()
    return (walker(rng, moved, time, jog=jog),)

  return world.Flow(headway, 0.0, length / 1.1 + 5.0, draw)
