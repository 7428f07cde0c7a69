"""Dogs."""

import math
from typing import NamedTuple

from ojd.streams.synthetic import draws
from ojd.streams.synthetic.draws import Colour

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
