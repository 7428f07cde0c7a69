"""Bicycles and the people who ride them."""

import math
from typing import NamedTuple

from ojd.streams.synthetic import bodies, draws, people
from ojd.streams.synthetic.draws import Colour

_PAINT = (
  (186, 40, 44), (34, 84, 150), (40, 44, 50), (214, 212, 206), (42, 122, 84),
  (216, 160, 40), (120, 190, 200),
)  # fmt: skip
_RADIUS = 0.35
_REAR, _FRONT = (-0.54, _RADIUS), (0.54, _RADIUS)
_CRANK, _SEAT = (-0.05, 0.3), (-0.2, 0.92)
_STEM, _BARS = (0.4, 0.88), (0.38, 1.04)
_PEDAL = 0.165
_CIRCLE = tuple(
  (math.cos(math.pi * i / 8), math.sin(math.pi * i / 8)) for i in range(17)
)


class Bicycle(NamedTuple):
  """The appearance of a bicycle."""

  paint: Colour
  tyre: Colour
  basket: Colour | None
  bags: Colour | None
  child_seat: bool


def draw_bicycle_look(rng) -> Bicycle:
  """Draws a bicycle."""
  return Bicycle(
    paint=draws.vary(rng, draws.pick(rng, _PAINT), 14),
    tyre=draws.vary(rng, (42, 40, 40), 10),
    basket=(150, 112, 66) if rng.random() < 0.4 else None,
    bags=draws.vary(rng, draws.pick(rng, people.CLOTH), 14)
    if rng.random() < 0.6
    else None,
    child_seat=bool(rng.random() < 0.25),
  )


def _bend(start, end, first: float, second: float):
  """Returns the joint of two bones between start and end, bent forward."""
  dx, dy = end[0] - start[0], end[1] - start[1]
  reach = min(math.hypot(dx, dy), 0.999 * (first + second))
  along = (first**2 - second**2 + reach**2) / (2.0 * reach)
  aside = math.sqrt(max(0.0, first**2 - along**2))
  ux, uy = dx / reach, dy / reach
  return start[0] + ux * along - uy * aside, start[1] + uy * along + ux * aside


def ride_pose(height: float, phase: float) -> people.Pose:
  """Returns the pose of a rider whose left crank stands at the phase."""
  hip = (_SEAT[0] + 0.02, _SEAT[1] + 0.1)
  shoulder = (hip[0] + 0.155 * height, hip[1] + 0.25 * height)
  knees, ankles = [], []
  for shift in (0.0, math.pi):
    pedal = (
      _CRANK[0] + _PEDAL * math.cos(phase + shift) - 0.04,
      _CRANK[1] - _PEDAL * math.sin(phase + shift) + 0.09,
    )
    ankles.append(pedal)
    knees.append(_bend(hip, pedal, 0.25 * height, 0.25 * height))
  hand = (_BARS[0] + 0.02, _BARS[1] + 0.02)
  # An elbow bends downwards: the forward joint of the way back.
  elbow = _bend(hand, shoulder, 0.17 * height, 0.17 * height)
  return people.Pose(
    hip, shoulder, (shoulder[0] + 0.03 * height, shoulder[1] + 0.115 * height),
    tuple(knees), tuple(ankles), (elbow, elbow), (hand, hand),
  )  # fmt: skip


def draw_rider(
  pen, numbers, bicycle: Bicycle, look: people.Look, x, z, heading, distance
) -> None:
  """Draws a bicycle and its rider as two things.

  Args:
    pen: the rasteriser.
    numbers: of the bicycle and of the person.
    bicycle: its appearance.
    look: of the rider.
    x: ground position.
    z: ground position.
    heading: of travel.
    distance: ridden so far in metres; wheels and pedals follow from it.
  """
  pose = ride_pose(look.height, distance / 0.9)
  body = bodies.figure(pen, look, pose, x, z, heading)
  far = 1 - body.near
  pen.resume(numbers[1])
  bodies.draw_leg(body, far, 0.8)
  bodies.draw_arm(body, far, 0.85)
  pen.resume(numbers[0])
  _draw_bicycle(pen, bicycle, body.put, body.scale, distance)
  pen.resume(numbers[1])
  bodies.draw_trunk(body)
  bodies.draw_leg(body, body.near, 1.0)
  bodies.draw_arm(body, body.near, 1.08)
  bodies.draw_head(body)


def _draw_bicycle(pen, bicycle: Bicycle, put, scale, distance) -> None:
  roll = -distance / _RADIUS
  for hub in (_REAR, _FRONT):
    _draw_wheel(pen, bicycle, put, scale, hub, roll)
  thick = 0.055 * scale
  points = {name: put(*at) for name, at in (
    ("rear", _REAR), ("front", _FRONT), ("crank", _CRANK), ("seat", _SEAT),
    ("stem", _STEM), ("bars", _BARS))}  # fmt: skip
  neck = put(_SEAT[0] + 0.04, _SEAT[1] - 0.14)
  paint = bicycle.paint
  pen.line((points["rear"], neck, points["stem"]), thick * 0.8, paint)
  pen.line((points["rear"], points["crank"], points["stem"]), thick, paint)
  pen.line((points["crank"], neck, points["seat"]), thick, paint)
  pen.line((points["bars"], points["stem"], points["front"]), thick, paint)
  pen.line((put(*_BARS, 0.27), put(*_BARS, -0.27)), thick, (36, 36, 38))
  pen.line(
    (put(_SEAT[0] - 0.14, _SEAT[1] + 0.02), put(_SEAT[0] + 0.14, _SEAT[1])),
    thick * 1.5, (38, 34, 32),
  )  # fmt: skip
  pen.ellipse(*points["crank"], 0.09 * scale, 0.09 * scale, (70, 70, 74))
  _draw_load(pen, bicycle, put)
  if pen.lit:
    pen.ellipse(*put(0.5, 0.82), 0.05 * scale, 0.05 * scale, (255, 255, 251))


def _draw_wheel(pen, bicycle, put, scale, hub, roll) -> None:
  forward, up = hub
  ring = [put(forward + _RADIUS * c, up + _RADIUS * s) for c, s in _CIRCLE]
  for turn in (0.0, 1.047, 2.094):
    c = 0.95 * _RADIUS * math.cos(roll + turn)
    s = 0.95 * _RADIUS * math.sin(roll + turn)
    ends = (put(forward + c, up + s), put(forward - c, up - s))
    pen.line(ends, 0.015 * scale, (150, 150, 152))
  pen.line(ring, 0.07 * scale, bicycle.tyre)


def _draw_load(pen, bicycle: Bicycle, put) -> None:
  boxes = []
  if bicycle.bags is not None:
    boxes.append(((-0.78, 0.38, -0.42, 0.7), bicycle.bags))
  if bicycle.basket is not None:
    boxes.append(((0.42, 0.84, 0.74, 1.06), bicycle.basket))
  if bicycle.child_seat:
    boxes.append(((-0.72, 0.74, -0.4, 1.1), (70, 76, 88)))
  for (f0, y0, f1, y1), colour in boxes:
    # Seen from the front a bag is as wide as it is thick.
    pen.polygon(
      (put(f0, y0, 0.12), put(f1, y0, 0.12), put(f1, y1, 0.12),
       put(f0, y1, 0.12)),
      draws.tone(colour, 0.8),
    )  # fmt: skip
    pen.polygon(
      (put(f0, y0, 0.13), put(f0, y0, -0.13), put(f0, y1, -0.13),
       put(f0, y1, 0.13)),
      draws.tone(colour, 0.9),
    )  # fmt: skip
    pen.polygon(
      (put(f0, y0, -0.12), put(f1, y0, -0.12), put(f1, y1, -0.12),
       put(f0, y1, -0.12)),
      colour,
    )  # fmt: skip
