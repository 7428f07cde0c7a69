"""Things that stand still in front of actors: they hide, and are background."""

import math
from typing import NamedTuple

from ojd.streams.synthetic import draws
from ojd.streams.synthetic.draws import Colour


class Prop(NamedTuple):
  """A thing that stands at a ground point."""

  kind: str
  x: float
  z: float
  size: float  # metres: its height
  colour: Colour
  seed: int
  blobs: tuple  # of foliage: (aside, up, radius, gain), in sizes


def make_prop(rng, kind: str, x: float, z: float) -> Prop:
  """Draws a prop of a kind for a ground point."""
  low, high, colours = _KINDS[kind][1:]
  blobs = ()
  if kind in ("tree", "bush"):
    blobs = _foliage(rng, kind)
  return Prop(
    kind, x, z, draws.between(rng, low, high),
    draws.vary(rng, draws.pick(rng, colours), 10), int(rng.integers(1000)),
    blobs,
  )  # fmt: skip


def _foliage(rng, kind: str):
  blobs = []
  for i in range(9 if kind == "tree" else 7):
    if kind == "tree":
      angle = 2.399 * i
      away = 0.17 * math.sqrt(i / 8.0)
      middle = (away * math.cos(angle), 0.76 + 0.75 * away * math.sin(angle))
      radius = draws.between(rng, 0.13, 0.18)
    else:
      middle = (draws.between(rng, -0.8, 0.8), draws.between(rng, 0.3, 0.62))
      radius = draws.between(rng, 0.28, 0.42)
    blobs.append((*middle, radius, draws.between(rng, 0.72, 1.05)))
  # Lower leaves lie in the shade of the upper ones and are drawn first.
  return tuple(sorted(blobs, key=lambda blob: blob[1]))


def half_width(prop: Prop) -> float:
  """Returns half of how wide the prop is, in metres."""
  return prop.size * {"tree": 0.36, "bush": 1.3, "bench": 1.2}.get(
    prop.kind, 1.3 if prop.kind == "barrier" else 0.4
  )


def draw_prop(pen, prop: Prop, time: float) -> None:
  """Draws the prop; leaves move a little with the wind."""
  put = pen.place(prop.x, prop.z, 0.0)
  q = pen.view.k / prop.z  # pixels a metre
  _KINDS[prop.kind][0](pen, prop, put, q)
  h = prop.size
  for i, (aside, up, radius, gain) in enumerate(prop.blobs):
    wind = 0.006 * h * math.sin(1.7 * time + i + prop.seed)
    across = radius * h * q
    colour = draws.tone(prop.colour, gain)
    pen.ellipse(*put(aside * h + wind, up * h), across, across * 0.85, colour)


def _rect(pen, put, aside, low, half, high, colour) -> None:
  left, top = put(aside - half, high)
  right, bottom = put(aside + half, low)
  pen.polygon((left, top, right, top, right, bottom, left, bottom), colour)


def _draw_lamp(pen, prop: Prop, put, q) -> None:
  h = prop.size
  _rect(pen, put, 0.0, 0.0, 0.12, 0.5, draws.tone(prop.colour, 0.8))
  _rect(pen, put, 0.0, 0.0, 0.055, h, prop.colour)
  arm = 1.0 if prop.seed % 2 else -1.0
  pen.line((put(0.0, h), put(0.9 * arm, h + 0.12)), 0.09 * q, prop.colour)
  colour = (255, 253, 248) if pen.lit else (210, 208, 196)
  pen.ellipse(*put(1.0 * arm, h + 0.06), 0.26 * q, 0.09 * q, colour)


def _draw_tree(pen, prop: Prop, put, q) -> None:
  h = prop.size
  trunk = (92, 72, 54)
  foot, middle, top = put(0.0, 0.0), put(0.03 * h, 0.32 * h), put(0.0, 0.75 * h)
  pen.ribbon(foot, middle, top, 0.036 * h * q, 0.025 * h * q, 0.012 * h * q,
             trunk)  # fmt: skip
  pen.line((middle, put(0.15 * h, 0.62 * h)), 0.02 * h * q, trunk)


def _draw_bush(pen, prop: Prop, put, q) -> None:
  _rect(pen, put, 0.0, 0.0, prop.size * 0.8, prop.size * 0.3,
        draws.tone(prop.colour, 0.66))  # fmt: skip


def _draw_barrier(pen, prop: Prop, put, q) -> None:
  h = prop.size
  for aside in (-1.0, 1.0):
    _rect(pen, put, aside * h, 0.0, 0.04, h, (90, 92, 96))
  for i in range(6):
    colour = prop.colour if i % 2 else (222, 220, 214)
    aside = (-1.0 + (i + 0.5) / 3.0) * 1.15 * h
    _rect(pen, put, aside, 0.62 * h, 1.15 * h / 6, 0.92 * h, colour)
  _rect(pen, put, 0.0, 0.3 * h, 1.1 * h, 0.38 * h, (200, 198, 192))


def _draw_bin(pen, prop: Prop, put, q) -> None:
  h = prop.size
  _rect(pen, put, 0.0, 0.0, 0.24 * h, 0.86 * h, prop.colour)
  _rect(pen, put, 0.08 * h, 0.0, 0.16 * h, 0.86 * h,
        draws.tone(prop.colour, 0.82))  # fmt: skip
  _rect(pen, put, 0.0, 0.86 * h, 0.28 * h, h, draws.tone(prop.colour, 0.6))
  _rect(pen, put, 0.0, 0.45 * h, 0.15 * h, 0.62 * h, (214, 212, 206))


def _draw_pillar(pen, prop: Prop, put, q) -> None:
  """Draws an advertising pillar with a painted figure, which is nobody."""
  h = prop.size
  _rect(pen, put, 0.0, 0.0, 0.2 * h, 0.92 * h, prop.colour)
  _rect(pen, put, 0.1 * h, 0.0, 0.1 * h, 0.92 * h,
        draws.tone(prop.colour, 0.8))  # fmt: skip
  _rect(pen, put, 0.0, 0.92 * h, 0.23 * h, h, (60, 64, 62))
  _rect(pen, put, -0.03 * h, 0.2 * h, 0.14 * h, 0.84 * h, (222, 214, 190))
  pen.ellipse(*put(-0.03 * h, 0.7 * h), 0.045 * h * q, 0.055 * h * q,
              (206, 160, 128))  # fmt: skip
  coat = ((60, 90, 150), (170, 50, 50), (50, 110, 80))[prop.seed % 3]
  _rect(pen, put, -0.03 * h, 0.34 * h, 0.08 * h, 0.62 * h, coat)


def _draw_bench(pen, prop: Prop, put, q) -> None:
  h = prop.size
  for aside in (-0.8, 0.8):
    _rect(pen, put, aside * h, 0.0, 0.05 * h, 0.95 * h, (52, 54, 54))
  for low in (0.42, 0.62, 0.82):
    _rect(pen, put, 0.0, low * h, 1.0 * h, (low + 0.12) * h, prop.colour)


def _draw_kiosk(pen, prop: Prop, put, q) -> None:
  h = prop.size
  _rect(pen, put, 0.0, 0.0, 0.36 * h, 0.88 * h, prop.colour)
  _rect(pen, put, 0.0, 0.36 * h, 0.3 * h, 0.7 * h, (70, 76, 82))
  _rect(pen, put, 0.0, 0.86 * h, 0.42 * h, h, draws.tone(prop.colour, 0.65))


_GREEN = ((66, 104, 48), (84, 116, 52), (52, 90, 56), (120, 112, 44))
# kind -> drawing, least and greatest height, colours
_KINDS = {
  "lamp": (_draw_lamp, 4.2, 5.0, ((70, 76, 78), (52, 60, 58))),
  "tree": (_draw_tree, 4.5, 7.0, _GREEN),
  "bush": (_draw_bush, 0.7, 1.0, _GREEN),
  "barrier": (_draw_barrier, 0.9, 1.05, ((190, 44, 40), (216, 120, 40))),
  "bin": (_draw_bin, 0.95, 1.25, ((176, 40, 40), (50, 90, 140), (70, 84, 70))),
  "pillar": (_draw_pillar, 2.2, 2.6, ((74, 104, 92), (120, 60, 56))),
  "kiosk": (_draw_kiosk, 2.4, 2.7, ((64, 92, 76), (150, 60, 50))),
  "bench": (_draw_bench, 0.85, 0.95, ((140, 96, 60), (110, 84, 58))),
}
