"""Projected solids: faces that turn to the eye, details on them, wheels.

A solid stands on a rectangle and may narrow towards its top. Its faces are
named right, front, left, back and top; only those that turn to the eye are
drawn, and details are placed on a face by shares of its sides.
"""

import math
from typing import NamedTuple

from ojd.streams.synthetic import draws
from ojd.streams.synthetic.draws import Colour

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
