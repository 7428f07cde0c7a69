"""Cars, buses and trucks: projected solids with windows, wheels and lights.

A solid stands on a rectangle and may narrow towards its top. Its faces are
named right, front, left, back and top; only those that turn to the eye are
drawn, and details are placed on a face by shares of its sides.
"""

import math
from typing import NamedTuple

from ojd.streams.synthetic import draws
from ojd.streams.synthetic.draws import Colour

_PAINT = (
  (176, 36, 40), (36, 66, 128), (46, 48, 54), (216, 216, 214), (150, 154, 160),
  (34, 96, 78), (206, 166, 50), (110, 34, 46), (92, 128, 168), (226, 130, 50),
  (176, 166, 144),
)  # fmt: skip
_GLASS = (58, 72, 86)
_DARK = (26, 26, 28)
SIDES = ("right", "left")
_ANGLES = {
  "front": 0.0, "left": math.pi / 2, "back": math.pi, "right": -math.pi / 2,
}  # fmt: skip
_ROUND = tuple(
  (math.cos(math.pi * i / 6), math.sin(math.pi * i / 6)) for i in range(12)
)
RUBBER = (34, 33, 34)


class Solid(NamedTuple):
  """A box whose top may be smaller than its foot, in the body's frame."""

  rear: float
  front: float
  half: float  # of the width
  low: float
  high: float
  top_rear: float
  top_front: float
  top_half: float


class Stage(NamedTuple):
  """What the parts of one vehicle share while they are drawn."""

  pen: object
  put: object
  heading: float
  scale: float  # pixels a metre
  near: bool  # whether small details can be seen


class Vehicle(NamedTuple):
  """The appearance of a vehicle."""

  kind: str  # car, bus, truck
  length: float  # metres
  width: float
  height: float
  paint: Colour
  second: Colour
  style: int


def box(rear, front, half, low, high) -> Solid:
  """Returns a solid as wide above as below."""
  return Solid(rear, front, half, low, high, rear, front, half)


def corners_of(solid: Solid):
  """Returns the faces' corners: low left, low right, high right, high left."""
  r, f, h, y, t, tr, tf, th = solid
  return {
    "right": ((r, y, -h), (f, y, -h), (tf, t, -th), (tr, t, -th)),
    "front": ((f, y, -h), (f, y, h), (tf, t, th), (tf, t, -th)),
    "left": ((f, y, h), (r, y, h), (tr, t, th), (tf, t, th)),
    "back": ((r, y, h), (r, y, -h), (tr, t, -th), (tr, t, th)),
    "top": ((tr, t, -th), (tf, t, -th), (tf, t, th), (tr, t, th)),
  }


def draw_solid(stage: Stage, solid: Solid, colour: Colour):
  """Draws the faces that are seen and returns their corners by name."""
  seen = {}
  sun_x, sun_z = stage.pen.sun
  for name, corners in corners_of(solid).items():
    a, b, c, d = (stage.put(*corner) for corner in corners)
    turn = (b[0] - a[0]) * (d[1] - a[1]) - (b[1] - a[1]) * (d[0] - a[0])
    if turn >= 0.0:
      continue
    if name == "top":
      gain = 1.14
    else:
      angle = stage.heading + _ANGLES[name]
      # Light comes from where the shadows do not fall.
      gain = 0.8 - 0.24 * (math.cos(angle) * sun_x + math.sin(angle) * sun_z)
    stage.pen.polygon((a, b, c, d), draws.tone(colour, gain))
    seen[name] = corners
  return seen


def draw_detail(stage: Stage, seen, name: str, area, colour: Colour) -> None:
  """Draws a rectangle (from, low, to, high) in shares of a face, if seen.

  Shares along a side run from the back of the vehicle to its front.
  """
  if name not in seen:
    return
  left, low, right, high = area
  if name == "left":
    left, right = 1.0 - left, 1.0 - right
  corners = seen[name]
  points = [
    stage.put(*_between(corners, along, up))
    for along, up in ((left, low), (right, low), (right, high), (left, high))
  ]
  stage.pen.polygon(points, colour)


def _between(corners, along: float, up: float):
  """Returns the point of a face at shares of its length and height."""
  (ax, ay, az), (bx, by, bz), (cx, cy, cz), (dx, dy, dz) = corners
  b, c = (1.0 - up) * along, up * along
  a, d = 1.0 - up - b, up - c
  return (
    a * ax + b * bx + c * cx + d * dx,
    a * ay + b * by + c * cy + d * dy,
    a * az + b * bz + c * cz + d * dz,
  )


def draw_wheels(stage: Stage, seen, axles, half, radius, distance) -> None:
  """Draws the wheels of the side that is seen, turned by the distance."""
  for name in SIDES:
    if name not in seen:
      continue
    left = half if name == "left" else -half
    for axle in axles:
      for size, colour in ((1.0, RUBBER), (0.58, (150, 152, 156))):
        stage.pen.polygon(
          [
            stage.put(axle + size * radius * c, radius * (1 + size * s), left)
            for c, s in _ROUND
          ],
          colour,
        )
        if not stage.near:
          break
      if stage.near:
        _draw_spoke(stage, axle, radius, left, -distance / radius)


def _draw_spoke(stage: Stage, axle, radius, left, angle) -> None:
  c, s = 0.5 * radius * math.cos(angle), 0.5 * radius * math.sin(angle)
  for forward, up in ((c, s), (-s, c)):
    stage.pen.line(
      (
        stage.put(axle + forward, radius + up, left),
        stage.put(axle - forward, radius - up, left),
      ),
      0.06 * stage.scale,
      (70, 72, 76),
    )


def draw_vehicle_look(rng, kind: str) -> Vehicle:
  """Draws a vehicle of a kind."""
  sizes = {
    "car": ((3.7, 4.8), (1.7, 1.85), (1.42, 1.7)),
    "bus": ((9.0, 10.5), (2.4, 2.5), (2.9, 3.15)),
    "truck": ((6.2, 8.0), (2.2, 2.4), (2.7, 3.2)),
  }[kind]
  length, width, height = (draws.between(rng, *size) for size in sizes)
  paint = draws.vary(rng, draws.pick(rng, _PAINT), 12)
  second = draws.vary(rng, draws.pick(rng, _PAINT), 12)
  style = int(rng.integers(3))
  return Vehicle(kind, length, width, height, paint, second, style)


def _draw_under(stage: Stage, vehicle: Vehicle, low: float) -> None:
  """Draws the dark below the body and the tyres' ends."""
  half = 0.47 * vehicle.width
  under = box(-0.44 * vehicle.length, 0.44 * vehicle.length, half, 0.0, low)
  seen = {
    name: corners
    for name, corners in corners_of(under).items()
    if name in ("front", "back")
  }
  facing = "back" if math.sin(stage.heading) > 0 else "front"
  for area in ((0.0, 0.0, 0.16, 1.0), (0.84, 0.0, 1.0, 1.0)):
    draw_detail(stage, seen, facing, area, RUBBER)
  belly = box(under.rear, under.front, half * 0.9, 0.45 * low, low)
  draw_solid(stage, belly, _DARK)


def _draw_lights(stage: Stage, seen, low: float, high: float) -> None:
  lit = stage.pen.lit
  lamp = (255, 255, 252) if lit else (226, 226, 216)
  tail = (255, 46, 34) if lit else (150, 26, 24)
  for name, colour in (("front", lamp), ("back", tail)):
    for left, right in ((0.05, 0.24), (0.76, 0.95)):
      draw_detail(stage, seen, name, (left, low, right, high), colour)
  for name in SIDES:
    draw_detail(stage, seen, name, (0.965, low, 1.0, high), lamp)
    draw_detail(stage, seen, name, (0.0, low, 0.025, high), tail)


def draw_vehicle(pen, vehicle: Vehicle, x, z, heading, distance) -> None:
  """Draws a vehicle at a ground point, its wheels turned by the distance."""
  scale = pen.view.k / z
  stage = Stage(
    pen, pen.place(x, z, heading), heading, scale, scale * vehicle.height > 22
  )
  _KINDS[vehicle.kind](stage, vehicle, distance)


def _draw_car(stage: Stage, car: Vehicle, distance: float) -> None:
  half_l, half_w = car.length / 2, car.width / 2
  waist = 0.58 * car.height
  _draw_under(stage, car, 0.32)
  body = Solid(-half_l, half_l, half_w, 0.24, waist, -half_l * 0.97,
               half_l * 0.94, half_w * 0.95)  # fmt: skip
  seen = draw_solid(stage, body, car.paint)
  for name in SIDES:
    draw_detail(stage, seen, name, (0.0, 0.0, 1.0, 0.16), _DARK)
    if stage.near:
      draw_detail(stage, seen, name, (0.47, 0.16, 0.485, 1.0),
              draws.tone(car.paint, 0.5))  # fmt: skip
  for name in ("front", "back"):
    draw_detail(
      stage, seen, name, (0.0, 0.0, 1.0, 0.3), draws.tone(car.paint, 0.5)
    )
    draw_detail(stage, seen, name, (0.36, 0.16, 0.64, 0.36), (206, 204, 196))
  draw_detail(stage, seen, "front", (0.28, 0.42, 0.72, 0.72), _DARK)
  _draw_lights(stage, seen, 0.5, 0.8)
  axles = (-0.31 * car.length, 0.31 * car.length)
  draw_wheels(stage, seen, axles, half_w, 0.33, distance)
  # Saloon, hatchback or estate: where the roof ends.
  rear = (-0.8, -0.98, -0.97)[car.style] * half_l
  roof = (-0.42, -0.66, -0.86)[car.style] * half_l
  cabin = Solid(
    rear, half_l * 0.44, half_w * 0.94, waist, car.height, roof,
    half_l * 0.1, half_w * 0.76,
  )  # fmt: skip
  seen = draw_solid(stage, cabin, car.paint)
  for name in SIDES:
    draw_detail(stage, seen, name, (0.1, 0.1, 0.5, 0.84), _GLASS)
    draw_detail(stage, seen, name, (0.55, 0.1, 0.9, 0.84), _GLASS)
  for name in ("front", "back"):
    draw_detail(stage, seen, name, (0.07, 0.08, 0.93, 0.9), _GLASS)
    draw_detail(stage, seen, name, (0.12, 0.55, 0.5, 0.9),
            draws.tone(_GLASS, 1.5))  # fmt: skip


def _draw_bus(stage: Stage, bus: Vehicle, distance: float) -> None:
  half_l, half_w = bus.length / 2, bus.width / 2
  _draw_under(stage, bus, 0.4)
  body = box(-half_l, half_l, half_w, 0.34, bus.height)
  seen = draw_solid(stage, body, bus.paint)
  glass = (252, 249, 244) if stage.pen.lit else _GLASS
  count = 7
  for name in SIDES:
    draw_detail(stage, seen, name, (0.0, 0.0, 1.0, 0.1), _DARK)
    draw_detail(stage, seen, name, (0.0, 0.24, 1.0, 0.36), bus.second)
    for i in range(count):
      start = 0.02 + 0.97 * i / count
      draw_detail(stage, seen, name, (start, 0.46, start + 0.125, 0.82), glass)
  for start in (0.3, 0.87):
    draw_detail(stage, seen, "right", (start, 0.06, start + 0.08, 0.8),
            draws.tone(_GLASS, 0.8))  # fmt: skip
  draw_detail(stage, seen, "front", (0.05, 0.32, 0.95, 0.82), _GLASS)
  draw_detail(stage, seen, "front", (0.2, 0.86, 0.8, 0.96),
          (255, 248, 90) if stage.pen.lit else (60, 50, 30))  # fmt: skip
  draw_detail(stage, seen, "back", (0.12, 0.5, 0.88, 0.82), _GLASS)
  draw_detail(stage, seen, "back", (0.0, 0.22, 1.0, 0.34), bus.second)
  _draw_lights(stage, seen, 0.1, 0.18)
  axles = (-0.28 * bus.length, 0.33 * bus.length)
  draw_wheels(stage, seen, axles, half_w, 0.48, distance)


def _draw_truck(stage: Stage, truck: Vehicle, distance: float) -> None:
  half_l, half_w = truck.length / 2, truck.width / 2
  split = half_l - 1.9
  _draw_under(stage, truck, 0.6)
  cargo = box(-half_l, split - 0.12, half_w, 0.62, truck.height)
  cab = Solid(
    split, half_l, half_w * 0.95, 0.42, truck.height * 0.84, split,
    half_l - 0.22, half_w * 0.92,
  )  # fmt: skip
  # The part farther from the eye comes first.
  parts = [("cargo", cargo, truck.second), ("cab", cab, truck.paint)]
  if math.sin(stage.heading) > 0.0:
    parts.reverse()
  axles = (-0.34 * truck.length, -0.2 * truck.length, half_l - 0.95)
  for name, solid, paint in parts:
    seen = draw_solid(stage, solid, paint)
    if name == "cab":
      _draw_cab(stage, seen)
    else:
      _draw_cargo(stage, seen, truck)
  draw_wheels(stage, seen, axles, half_w, 0.46, distance)


def _draw_cab(stage: Stage, seen) -> None:
  for side in SIDES:
    draw_detail(stage, seen, side, (0.28, 0.52, 0.86, 0.88), _GLASS)
    draw_detail(stage, seen, side, (0.0, 0.0, 1.0, 0.16), _DARK)
  draw_detail(stage, seen, "front", (0.06, 0.5, 0.94, 0.9), _GLASS)
  draw_detail(stage, seen, "front", (0.2, 0.2, 0.8, 0.42), _DARK)
  _draw_lights(stage, seen, 0.08, 0.18)


def _draw_cargo(stage: Stage, seen, truck: Vehicle) -> None:
  mark = draws.tone(truck.paint, 1.15)
  for side in SIDES:
    if truck.style == 0:
      for i in range(6):
        start = 0.1 + 0.15 * i
        draw_detail(stage, seen, side, (start, 0.03, start + 0.02, 0.97),
                draws.tone(truck.second, 0.62))  # fmt: skip
    else:
      draw_detail(stage, seen, side, (0.15, 0.3, 0.85, 0.62), mark)
      draw_detail(stage, seen, side, (0.25, 0.4, 0.6, 0.52), truck.second)
  draw_detail(stage, seen, "back", (0.49, 0.0, 0.51, 1.0), _DARK)
  tail = (255, 46, 34) if stage.pen.lit else (150, 26, 24)
  for left, right in ((0.04, 0.16), (0.84, 0.96)):
    draw_detail(stage, seen, "back", (left, 0.0, right, 0.06), tail)


_KINDS = {"car": _draw_car, "bus": _draw_bus, "truck": _draw_truck}
