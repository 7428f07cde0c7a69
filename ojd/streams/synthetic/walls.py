"""Houses on the backdrop: walls with windows, shops and things like people."""

import math
from typing import NamedTuple

from ojd.streams.synthetic import draws
from ojd.streams.synthetic.bodies import CLOTH

_PLASTER = (
  (196, 178, 150), (172, 132, 108), (150, 96, 78), (200, 192, 178),
  (146, 150, 150), (180, 160, 120), (128, 108, 98), (164, 176, 178),
)  # fmt: skip
_FLOOR = 3.0


class Plate(NamedTuple):
  """A picture of the whole plane, to paint on."""

  draw: object  # of an RGB image
  left: float  # u of its left edge
  top: float  # v of its top edge
  scale: float  # pixels a plane unit
  lens: object
  night: bool

  def at(self, x: float, y: float, z: float):
    """Returns the pixel of a point of the world."""
    q = self.lens.focal * self.scale / z
    return (
      -self.left * self.scale + q * x,
      (self.lens.horizon - self.top) * self.scale + q * (self.lens.eye - y),
    )

  def polygon(self, points, colour) -> None:
    """Fills a polygon of world points."""
    self.draw.polygon([self.at(*point) for point in points], colour)

  def rectangle(self, left, low, right, high, z, colour) -> None:
    """Fills a rectangle that faces the eye."""
    self.polygon(
      ((left, low, z), (right, low, z), (right, high, z), (left, high, z)),
      colour,
    )

  def disc(self, x, y, z, radius: float, colour, flat: float = 1.0) -> None:
    """Fills a circle that faces the eye."""
    column, row = self.at(x, y, z)
    q = self.lens.focal * self.scale / z * radius
    self.draw.ellipse(
      (column - q, row - q * flat, column + q, row + q * flat), colour
    )


class Wall(NamedTuple):
  """An upright rectangle from one ground point to another."""

  plate: Plate
  start: tuple[float, float]
  end: tuple[float, float]

  def fill(self, a0, y0, a1, y1, colour) -> None:
    """Fills the part between two lengths along and two heights."""
    length = math.dist(self.start, self.end)
    (x0, z0), (x1, z1) = self.start, self.end
    corners = []
    for a, y in ((a0, y0), (a1, y0), (a1, y1), (a0, y1)):
      share = a / length
      corners.append((x0 + (x1 - x0) * share, y, z0 + (z1 - z0) * share))
    self.plate.polygon(corners, colour)


def paint_wall(plate: Plate, rng, start, end, height: float, gain: float):
  """Paints one house's wall.

  Args:
    plate: to paint on.
    rng: of the house; a day and a night plate get equal draws from it.
    start: (x, z) of one end.
    end: (x, z) of the other end.
    height: in metres.
    gain: brightness by its direction.
  """
  wall = Wall(plate, start, end)
  length = math.dist(start, end)
  colour = draws.tone(draws.vary(rng, draws.pick(rng, _PLASTER), 16), gain)
  wall.fill(0.0, 0.0, length, height, colour)
  wall.fill(0.0, height - 0.35, length, height, draws.tone(colour, 0.72))
  wall.fill(0.0, 0.0, length, 0.5, draws.tone(colour, 0.6))
  bays = max(1, int(length / 2.3))
  frame = draws.pick(rng, ((216, 212, 204), (90, 84, 78), (120, 60, 50)))
  for floor in range(1, max(1, int((height - 0.6) / _FLOOR))):
    for bay in range(bays):
      _paint_window(wall, rng, length, bays, bay, floor, frame, gain)
  _paint_ground_floor(wall, rng, length, bays, gain)


def _paint_window(wall, rng, length, bays, bay, floor, frame, gain) -> None:
  width = length / bays
  a0, a1 = (bay + 0.27) * width, (bay + 0.73) * width
  y0 = floor * _FLOOR + 0.7
  shade, lit, warm, blind = rng.random(4)
  glass = draws.tone((70 + 40 * shade, 84 + 44 * shade, 100 + 46 * shade), gain)
  if wall.plate.night and lit < 0.5:
    glass = (255, 250 + int(2 * warm), 243 + int(6 * warm))
  wall.fill(a0 - 0.1, y0 - 0.1, a1 + 0.1, y0 + 1.7, draws.tone(frame, gain))
  wall.fill(a0, y0, a1, y0 + 1.6, glass)
  if blind < 0.35:
    wall.fill(a0, y0 + 1.6 - 2.5 * blind, a1, y0 + 1.6,
              draws.tone((196, 186, 166), gain))  # fmt: skip
  middle = (a0 + a1) / 2
  wall.fill(middle - 0.04, y0, middle + 0.04, y0 + 1.6,
            draws.tone(frame, gain))  # fmt: skip


def _paint_ground_floor(wall, rng, length, bays, gain) -> None:
  width = length / bays
  sign = draws.vary(rng, draws.pick(rng, CLOTH), 16)
  is_shop = rng.random() < 0.65
  if is_shop:
    wall.fill(0.2, 2.55, length - 0.2, 3.05, draws.tone(sign, gain))
  for bay in range(bays):
    kind, shade, lit = rng.random(3)
    a0, a1 = (bay + 0.12) * width, (bay + 0.88) * width
    shine = wall.plate.night and lit < 0.6
    glass = (254, 251, 246) if shine else draws.tone(
      (64 + 30 * shade, 74 + 30 * shade, 84 + 30 * shade), gain
    )  # fmt: skip
    if kind < 0.2:
      wall.fill(a0 + 0.3, 0.0, a1 - 0.3, 2.2, draws.tone(sign, 0.7 * gain))
    elif is_shop:
      wall.fill(a0, 0.5, a1, 2.4, glass)
      if kind > 0.55:
        _paint_dummy(wall, rng, (a0 + a1) / 2, gain)
      if kind > 0.75:
        wall.fill(a0 - 0.2, 2.0, a1 + 0.2, 2.6, draws.tone(sign, 1.1 * gain))
    else:
      wall.fill(a0 + 0.3, 0.9, a1 - 0.3, 2.3, glass)


def _paint_dummy(wall, rng, a: float, gain: float) -> None:
  """Paints a shop-window dummy or a poster's figure: no person."""
  colour = draws.tone(draws.pick(rng, CLOTH), 0.85 * gain)
  wall.fill(a - 0.2, 1.15, a + 0.2, 1.75, colour)
  wall.fill(a - 0.16, 0.55, a + 0.16, 1.15, draws.tone((60, 60, 70), gain))
  wall.fill(a - 0.1, 1.78, a + 0.1, 2.02, draws.tone((206, 178, 156), gain))


def paint_street(plate: Plate, rng, plan, far_end: float, reach: float) -> None:
  """Paints the houses along both streets, far ones first.

  Args:
    plate: to paint on.
    rng: of the place.
    plan: of the street.
    far_end: depth at which the side street ends.
    reach: greatest |x| that is ever seen at the houses' depth.
  """
  for side in (-1, 1):
    x = plan.side_x + side * plan.gap_half
    edges = [plan.houses]
    while edges[-1] < far_end:
      edges.append(edges[-1] + draws.between(rng, 8.0, 13.0))
    for z0, z1 in reversed(list(zip(edges, edges[1:], strict=False))):
      height = draws.between(rng, 6.0, 11.0)
      gain = 0.72 if side < 0 else 0.9
      paint_wall(plate, rng, (x, z0), (x, z1), height, gain)
  for side in (-1, 1):
    a = plan.side_x + side * plan.gap_half
    while side * a < reach:
      b = a + side * draws.between(rng, 6.0, 10.0)
      height = draws.between(rng, 5.2, 9.6)
      ends = sorted((a, b))
      paint_wall(plate, rng, (ends[0], plan.houses), (ends[1], plan.houses),
                 height, 1.0)  # fmt: skip
      _paint_roof(plate, rng, ends, plan.houses, height)
      a = b


def _paint_roof(plate: Plate, rng, ends, z: float, height: float) -> None:
  tile = draws.vary(rng, (110, 66, 54), 20)
  rise = draws.between(rng, 0.0, 2.2)
  left, right = ends
  plate.polygon(
    ((left, height, z), (right, height, z), (right - 0.8, height + rise, z),
     (left + 0.8, height + rise, z)),
    tile,
  )  # fmt: skip
  x = draws.between(rng, left + 1.0, right - 1.0)
  top = height + rise + 0.8
  plate.rectangle(x, height, x + 0.7, top, z, draws.tone(tile, 0.8))
