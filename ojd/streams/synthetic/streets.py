"""Street places: a street along the view that meets a street across it.

All traffic follows one timetable a lane, and a vehicle that turns off or in
takes the slot of one that goes straight on: no two are ever in one spot.
"""

from typing import NamedTuple

from ojd.streams.synthetic import draws, props, world

FAR_END = 120.0  # metres: where the side street is lost in haze
KIOSK_Z = 47.0  # who walks in the side street comes from behind a kiosk
_SPEED = 5.6
_LANE_KINDS = {
  "near": ("car", "car", "truck", "car", "car"),
  "far": ("car", "bus", "car", "truck", "car", "bus", "car"),
}


class StreetPlan(NamedTuple):
  """Depths (z) and sides (x) of the street's parts, in metres."""

  side_x: float  # middle of the side street
  side_half: float  # half of its carriageway
  gap_half: float  # half of the gap between the houses
  near_kerb: float
  near_lane: float
  middle: float
  far_lane: float
  far_kerb: float
  houses: float
  side: int  # 1 drives on the right, -1 on the left


def draw_plan(rng) -> StreetPlan:
  """Draws the ground plan of a street."""
  return StreetPlan(
    side_x=draws.between(rng, -5.0, 5.0),
    side_half=3.3,
    gap_half=5.8,
    near_kerb=8.2,
    near_lane=10.3,
    middle=11.9,
    far_lane=13.4,
    far_kerb=15.2,
    houses=19.0,
    side=draws.pick(rng, (1, -1)),
  )


def draw_lens(rng) -> world.Lens:
  """Draws the camera of a street, a little above the passers-by."""
  return world.Lens(
    eye=draws.between(rng, 2.05, 2.5),
    focal=draws.between(rng, 1.25, 1.4),
    horizon=draws.between(rng, 0.39, 0.43),
  )


def draw_props(rng, plan: StreetPlan):
  """Draws the street's furniture and returns it with the lamps' points."""
  things, lamps = [], []
  start = draws.between(rng, -16.0, -13.0)
  for i in range(5):
    x = start + 7.0 * i + draws.between(rng, -0.8, 0.8)
    kind = "lamp" if i % 2 == 0 else draws.pick(rng, ("tree", "tree", "lamp"))
    z = plan.near_kerb - 0.35
    things.append(props.make_prop(rng, kind, x, z))
    if kind == "lamp":
      lamps.append((x, z))
  for _ in range(4):
    kind = draws.pick(rng, ("bin", "pillar", "barrier", "bin", "tree"))
    x = draws.between(rng, -13.0, 13.0)
    things.append(props.make_prop(rng, kind, x, plan.far_kerb + 0.5))
  # Close to the eye: they hide the feet of people who walk behind them.
  for _ in range(2):
    kind = draws.pick(rng, ("barrier", "bush", "bin"))
    x = draws.between(rng, -3.6, 3.6)
    things.append(props.make_prop(rng, kind, x, 5.15))
  for side in (-1, 1):
    x = plan.side_x + side * (plan.gap_half - 0.8)
    things.append(props.make_prop(rng, "kiosk", x, KIOSK_Z))
    for depth in (24.0, 33.0, 44.0, 60.0):
      x = plan.side_x + side * (plan.side_half + 0.5)
      lamps.append((x, depth))
      things.append(props.make_prop(rng, "lamp", x, depth))
  # No thing but a lamp stands in the mouth of the side street.
  things = [
    thing
    for thing in things
    if thing.kind in ("lamp", "kiosk")
    or thing.z < plan.far_kerb
    or abs(thing.x - plan.side_x) > plan.gap_half
  ]
  return tuple(things), tuple(lamps)


def draw_flows(lens: world.Lens, plan: StreetPlan):
  """Returns the flows of a street."""
  far_walk = (plan.far_kerb + 0.8, plan.houses - 0.7)
  flows = [
    world.walkers_across(lens, 5.5, 7.2, 1, 4.6, dogs=3),
    world.walkers_across(lens, 5.7, 7.4, -1, 4.9, dogs=5),
    world.walkers_across(lens, *far_walk, 1, 11.0, dogs=4),
    world.walkers_across(lens, *far_walk, -1, 12.0),
    world.riders_across(lens, plan.near_kerb + 0.55, plan.side, 6.0),
    world.riders_across(lens, plan.far_kerb - 0.5, -plan.side, 9.0),
    _lane(lens, plan, "near", plan.side, 5.0),
    _lane(lens, plan, "far", -plan.side, 5.4),
  ]
  for side in (-1, 1):
    x = plan.side_x + side * (plan.gap_half - 1.2)
    z = plan.houses - 1.6
    door = plan.side_x + side * (plan.gap_half - 0.8)
    end = (side * world.edge_x(lens, z, 1.0), z)
    points = world.corner((x - side, KIOSK_Z - 1.0), (x, z), end, 1.0)
    points = [(door, KIOSK_Z + 0.8), (x - side, KIOSK_Z + 0.3), *points]
    flows.append(world.walkers_on(points, 15.0, 0.2))
  return tuple(flows)


def _lane(lens, plan: StreetPlan, name: str, way: int, headway: float):
  """Returns the traffic of one lane."""
  z = plan.near_lane if name == "near" else plan.far_lane
  edge = world.edge_x(lens, z, 6.5)
  straight = world.make_route([(-way * edge, z), (way * edge, z)])
  routes = [(straight, 0.0)]
  if name == "far":
    routes += _turns(plan, way, z, edge)
  kinds = _LANE_KINDS[name]

  def draw(rng, number: int, time: float):
    route, ahead = routes[number % len(routes)]
    kind = kinds[number % len(kinds)]
    trip = world.vehicle(rng, kind, route, time - ahead / _SPEED, _SPEED)
    return (trip,)

  lead = max(ahead for _, ahead in routes) / _SPEED
  linger = max(r.lengths[-1] - ahead for r, ahead in routes) / _SPEED
  return world.Flow(headway, lead, linger + 1.0, draw)


def _turns(plan: StreetPlan, way: int, z: float, edge: float):
  """Returns the routes off the lane and onto it, and how early they start."""
  # The far lane's kerb side is the side street's: both turns cross nobody.
  off_x = plan.side_x - way * 0.5 * plan.side_half
  on_x = plan.side_x + way * 0.5 * plan.side_half
  off = world.corner((-way * edge, z), (off_x, z), (off_x, FAR_END), 3.6)
  onto = world.corner((on_x, FAR_END), (on_x, z), (way * edge, z), 3.6)
  onto = world.make_route(onto)
  # Both leave the turn when the one that goes straight on passes there.
  merge = onto.lengths[-2] - (edge + way * onto.points[-2][0])
  return [(world.make_route(off), 0.0), (onto, merge)]
