"""Park and sports places."""

import math
from typing import NamedTuple

from ojd.streams.synthetic import bodies, draws, props, world


class ParkPlan(NamedTuple):
  """Depths of the paths, the path into the distance, and the pond."""

  near_path: float
  far_path: float
  half: float  # of a path's breadth
  deep_x: float  # where the path into the distance starts
  pond_x: float
  pond_z: float


class PitchPlan(NamedTuple):
  """Lines of the pitch."""

  near_line: float
  far_line: float
  stand: float  # depth of the crowd
  middle: float  # x of the halfway line
  goal_x: float


class Player(NamedTuple):
  """One player: where in the formation, and how they leave it."""

  look: bodies.Look
  x: float
  z: float
  runs_x: tuple
  runs_z: tuple


def draw_park_plan(rng) -> ParkPlan:
  """Draws the ground plan of a park."""
  side = draws.pick(rng, (-1, 1))
  return ParkPlan(
    6.0, 12.0, 1.25, side * draws.between(rng, 1.5, 4.0),
    -side * draws.between(rng, 9.0, 14.0), draws.between(rng, 22.0, 26.0),
  )  # fmt: skip


def draw_park_lens(rng) -> world.Lens:
  """Draws the camera of a park."""
  return world.Lens(
    draws.between(rng, 1.95, 2.3), draws.between(rng, 1.25, 1.4),
    draws.between(rng, 0.38, 0.42),
  )  # fmt: skip


def draw_park_props(rng, plan: ParkPlan):
  """Draws trees, bushes, benches and lamps, and returns the lamps' points."""
  things = []
  for z, count in ((8.6, 2), (10.0, 2), (15.5, 3), (21.0, 4), (30.0, 5)):
    reach = 1.1 * z
    for i in range(count):
      x = -reach + 2 * reach * (i + draws.between(rng, 0.2, 0.8)) / count
      if abs(x - plan.deep_x) > 1.8:
        things.append(props.make_prop(rng, "tree", x, z))
  for kind, z, reach in (
    ("bush", 4.75, 3.4), ("bush", 9.2, 6.0), ("bench", 14.2, 8.0),
    ("bin", 8.1, 5.0), ("bench", 8.3, 5.0), ("bush", 16.5, 12.0),
    ("bush", 18.0, 14.0),
  ):  # fmt: skip
    x = draws.between(rng, -reach, reach)
    things.append(props.make_prop(rng, kind, x, z))
  # Whoever walks on the path into the distance comes out from behind it.
  things.append(props.make_prop(rng, "kiosk", plan.deep_x * 1.7, 48.0))
  lamp = (draws.between(rng, -4.0, 4.0), plan.near_path + plan.half + 0.3)
  things.append(props.make_prop(rng, "lamp", *lamp))
  return tuple(things), (lamp,)


def draw_park_flows(lens: world.Lens, plan: ParkPlan):
  """Returns the flows of a park."""
  near = (plan.near_path - 0.9, plan.near_path + 0.9)
  far = (plan.far_path - 0.9, plan.far_path + 0.9)
  start = (plan.deep_x * 1.7, 48.0)
  deep = world.corner(
    (start[0] + 2.2, start[1]), (plan.deep_x, plan.far_path),
    (-math.copysign(world.edge_x(lens, plan.far_path, 1.0), plan.deep_x),
     plan.far_path), 1.5,
  )  # fmt: skip
  deep = [(start[0], start[1] + 1.0), *deep]
  flows = [
    world.walkers_across(lens, *near, 1, 6.0, dogs=2, jog=0.3),
    world.walkers_across(lens, *near, -1, 7.0, dogs=3, jog=0.3),
    world.walkers_across(lens, *far, 1, 13.0, dogs=3),
    world.walkers_across(lens, *far, -1, 14.0),
    world.riders_across(lens, plan.near_path, 1, 8.0),
    world.riders_across(lens, plan.far_path, -1, 11.0),
    world.walkers_on(deep, 14.0, 0.3),
    _loose_dogs(lens, plan),
  ]
  return tuple(flows)


def _loose_dogs(lens: world.Lens, plan: ParkPlan) -> world.Flow:
  """Returns dogs that run over the grass in bends."""
  first, last = plan.near_path + plan.half, plan.far_path - plan.half

  def draw(rng, number: int, time: float):
    way = 1 if number % 2 else -1
    z0, z1, z2 = (draws.between(rng, first + 0.6, last) for _ in range(3))
    ends = world.across(lens, z0, z2, way, 0.8)
    points = world.corner(ends[0], (draws.between(rng, -2, 2), z1), ends[1],
                          3.0)  # fmt: skip
    return (world.dog(rng, points, time, draws.between(rng, 2.5, 4.0)),)

  return world.Flow(7.0, 0.0, 2.0 * world.edge_x(lens, last, 2.0) / 2.4, draw)


def draw_pitch_plan(rng) -> PitchPlan:
  """Draws the ground plan of a pitch."""
  return PitchPlan(
    6.2, 36.0, 41.0, draws.between(rng, -6.0, 6.0),
    draws.pick(rng, (-1, 1)) * draws.between(rng, 18.0, 24.0),
  )  # fmt: skip


def draw_pitch_lens(rng) -> world.Lens:
  """Draws the camera of a pitch, on a low stand."""
  return world.Lens(
    draws.between(rng, 3.2, 3.8), draws.between(rng, 1.5, 1.7),
    draws.between(rng, 0.2, 0.25),
  )  # fmt: skip


def draw_players(rng) -> tuple[Player, ...]:
  """Draws two teams and a referee."""
  colours = [bodies.CLOTH[i] for i in rng.permutation(len(bodies.CLOTH))[:4]]
  shirts = ((colours[0], colours[1]), (colours[2], colours[3]))
  patterns = (
    draws.pick(rng, ("plain", "stripes")), draws.pick(rng, ("plain", "band"))
  )  # fmt: skip
  players = []
  for i in range(15):
    look = bodies.draw_look(rng)
    shirt, second = ((26, 26, 28), (200, 190, 60)) if i == 14 else shirts[i % 2]
    look = look._replace(
      height=max(1.66, look.height), top=shirt, second=second, sleeves=False,
      pattern="plain" if i == 14 else patterns[i % 2], legs="shorts", hat=None,
      bottom=second, shoes=draws.pick(rng, ((30, 30, 32), (216, 214, 90))),
      bag="none",
    )  # fmt: skip
    depth = (7.4, 9.2, 8.3, 11.0, 13.0, 10.0, 16.0, 20.0)[i // 2]
    x = depth * (-0.62 + 1.24 * ((i * 5) % 15) / 14.0)
    players.append(
      Player(
        look, x, depth + draws.between(rng, -0.5, 0.5),
        draws.waves(rng, draws.between(rng, 2.2, 3.6), (0.07, 0.17)),
        draws.waves(rng, draws.between(rng, 0.7, 1.6), (0.09, 0.2)),
      )
    )  # fmt: skip
  return tuple(players)


def play_x(place: world.Place, time: float, z: float) -> float:
  """Returns where the play is at a depth: the camera follows it."""
  pan = draws.sway(place.motion.pan, time + 0.4)
  return pan * z / place.lens.focal


def _spot(place: world.Place, player: Player, time: float):
  z = max(6.6, player.z + draws.sway(player.runs_z, time))
  play = play_x(place, time, 12.0)
  return player.x + play + draws.sway(player.runs_x, time), z


def team(place: world.Place, time: float) -> list[world.Placed]:
  """Returns all players at a time."""
  placed = []
  for i, player in enumerate(place.players):
    x, z = _spot(place, player, time)
    x1, z1 = _spot(place, player, time + 0.08)
    speed = math.hypot(x1 - x, z1 - z) / 0.08
    # People change the length of their steps more than the rate of them.
    placed.append(
      world.Placed(
        "player", (player.look,), x, z, math.atan2(z1 - z, x1 - x),
        1.9 * time + 0.37 * i, 2.6, min(1.3, speed / 2.4),
      )
    )  # fmt: skip
  return placed


def ball(place: world.Place, time: float) -> tuple[float, float, float]:
  """Returns the ball's x, height above the ground and z."""
  turn = 2.0 * math.pi * time
  x = play_x(place, time, 12.0) + 3.2 * math.sin(0.13 * turn)
  x += 1.3 * math.sin(0.31 * turn + 1.0)
  z = 11.0 + 2.5 * math.sin(0.11 * turn + 2.0)
  return x, 0.11 + 0.9 * abs(math.sin(0.45 * turn)), z
