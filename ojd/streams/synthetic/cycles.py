"""Bicycles and the people who ride them; dogs."""

import math
from typing import NamedTuple

from ojd.streams.synthetic import bodies, draws
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
    bags=draws.vary(rng, draws.pick(rng, bodies.CLOTH), 14)
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


def ride_pose(height: float, phase: float) -> bodies.Pose:
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
  return bodies.Pose(
    hip, shoulder, (shoulder[0] + 0.03 * height, shoulder[1] + 0.115 * height),
    tuple(knees), tuple(ankles), (elbow, elbow), (hand, hand),
  )  # fmt: skip


def draw_rider(
  pen, numbers, bicycle: Bicycle, look: bodies.Look, x, z, heading, distance
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


_FUR = (
  (196, 150, 96), (60, 50, 44), (220, 208, 188), (140, 92, 54), (110, 106, 102),
  (168, 104, 52), (34, 32, 34),
)  # fmt: skip


class Dog(NamedTuple):
  """The appearance of a dog."""

  size: float  # shoulder height in metres
  length: float  # of the body, in shoulder heights
  fur: Colour
  patch: Colour
  patched: bool
  fluffy: float
  ear_up: bool


def draw_dog_look(rng) -> Dog:
  """Draws a dog."""
  return Dog(
    size=draws.between(rng, 0.46, 0.76),
    length=draws.between(rng, 0.95, 1.25),
    fur=draws.vary(rng, draws.pick(rng, _FUR), 12),
    patch=draws.vary(rng, draws.pick(rng, _FUR), 12),
    patched=bool(rng.random() < 0.5),
    fluffy=draws.between(rng, 0.9, 1.3),
    ear_up=bool(rng.random() < 0.5),
  )


def draw_dog(pen, dog: Dog, x, z, heading, phase, swing, time) -> None:
  """Draws a dog on its four legs.

  Args:
    pen: the rasteriser.
    dog: its appearance.
    x: ground position.
    z: ground position.
    heading: of travel.
    phase: of the gait, in radians.
    swing: of the legs, in radians; 0 stands.
    time: in seconds; the tail wags by it.
  """
  put = pen.place(x, z, heading)
  s = dog.size
  q = pen.view.k / z * s
  near = -1.0 if math.cos(heading) > 0 else 1.0
  half = 0.5 * dog.length * s
  back = 0.92 * s + 0.02 * s * math.sin(2.0 * phase)
  for side in (-near, near):
    for end, shift in ((-1.0, 0.0), (1.0, math.pi)):
      shift += 0.0 if side == near else math.pi
      _draw_leg(pen, dog, put, q, end * half * 0.82, side * 0.13 * s,
                back * 0.85, phase + shift, swing, side == near)  # fmt: skip
  _draw_tail(pen, dog, put, q, half, back, time)
  rump, chest = put(-half * 0.9, back * 0.86), put(half * 0.85, back * 0.84)
  belly = put(0.0, back * 0.85)
  thick = 0.19 * q * dog.fluffy
  pen.ellipse(*rump, thick * 0.95, thick, dog.fur)
  pen.ellipse(*chest, thick * 1.08, thick * 1.15, dog.fur)
  pen.ribbon(rump, belly, chest, thick, thick * 0.92, thick * 1.12, dog.fur)
  if dog.patched:
    pen.ellipse(*put(-half * 0.3, back * 0.93, near * 0.1 * s), 0.2 * q,
                0.1 * q, dog.patch)  # fmt: skip
  _draw_head(pen, dog, put, q, half, back, math.sin(heading))


def _draw_leg(pen, dog, put, q, root, aside, up, phase, swing, near) -> None:
  out = swing * math.sin(phase)
  lift = max(0.0, math.cos(phase)) * min(1.0, swing * 2.0)
  upper, lower = 0.5 * up, 0.5 * up
  knee = (root + upper * math.sin(out), up - upper * math.cos(out))
  bend = out - 0.9 * lift
  paw = (
    knee[0] + lower * math.sin(bend), max(0.0, knee[1] - lower * math.cos(bend))
  )  # fmt: skip
  colour = dog.fur if near else draws.tone(dog.fur, 0.72)
  top, middle, end = (
    put(root, up, aside), put(*knee, aside), put(*paw, aside)
  )  # fmt: skip
  pen.ribbon(top, middle, end, 0.13 * q, 0.08 * q, 0.055 * q, colour)
  tip = put(paw[0] + 0.1 * dog.size, paw[1] + 0.02 * dog.size, aside)
  pen.line((end, tip), 0.09 * q, draws.tone(colour, 0.9))


def _draw_tail(pen, dog, put, q, half, back, time) -> None:
  wag = 0.14 * dog.size * math.sin(11.0 * time)
  root = put(-half * 0.95, back)
  middle = put(-half - 0.2 * dog.size, back + 0.16 * dog.size, wag * 0.5)
  tip = put(-half - 0.3 * dog.size, back + 0.4 * dog.size, wag)
  thick = 0.05 * q * dog.fluffy
  pen.ribbon(root, middle, tip, thick * 1.2, thick, thick * 0.7,
             draws.tone(dog.fur, 0.9))  # fmt: skip


def _draw_head(pen, dog, put, q, half, back, facing) -> None:
  s = dog.size
  neck = put(half * 0.85, back * 0.95)
  head = (half + 0.16 * s, back + 0.27 * s)
  at = put(*head)
  nose = put(head[0] + 0.32 * s, head[1] - 0.07 * s)
  pen.line((neck, at), 0.24 * q * dog.fluffy, dog.fur)
  skull, snout = (
    (0.16, 0.16),
    (0.085, 0.08),
  )
  if facing < 0.7:
    pen.ellipse(*at, skull[0] * q, skull[1] * q, dog.fur)
    pen.ribbon(at, ((at[0] + nose[0]) / 2, (at[1] + nose[1]) / 2), nose,
               0.12 * q, 0.1 * q, snout[1] * q, dog.fur)  # fmt: skip
    pen.ellipse(*nose, 0.05 * q, 0.045 * q, (28, 24, 24))
  else:
    pen.ellipse(*at, skull[0] * q, skull[1] * q, draws.tone(dog.fur, 0.92))
  ear = dog.patch if dog.patched else draws.tone(dog.fur, 0.7)
  rise = 0.16 if dog.ear_up else -0.1
  for side in (0.1, -0.1):
    pen.polygon(
      (put(head[0] - 0.1 * s, head[1] + 0.12 * s, side * s),
       put(head[0] + 0.04 * s, head[1] + 0.14 * s, side * s),
       put(head[0] - 0.06 * s, head[1] + (0.1 + rise) * s, side * 1.5 * s)),
      ear,
    )  # fmt: skip
