"""The panorama behind the actors, painted once for a place and a size.

The ground is painted by ground coordinates: x and z are those of its pixels,
[H, W] and [H, 1] float32, where H, W are the panorama's size.
"""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ojd.streams.synthetic import draws, greens, places, streets, walls, world
from ojd.streams.synthetic.raster import LAMP

_SHARPNESS = 1.13  # backdrop pixels a picture pixel, unzoomed: the mean zoom


class Panorama(NamedTuple):
  """A picture of all of the plane that the camera may look at."""

  image: Image.Image
  left: float
  top: float
  scale: float  # pixels a plane unit


def look(panorama: Panorama, window: world.Window, size) -> Image.Image:
  """Returns the part of the panorama in the window, at a size (W, H)."""
  left = (window.left - panorama.left) * panorama.scale
  top = (window.top - panorama.top) * panorama.scale
  right = left + window.width * panorama.scale
  bottom = top + window.height * panorama.scale
  box = (
    max(0.0, left), max(0.0, top), min(panorama.image.width, right),
    min(panorama.image.height, bottom),
  )  # fmt: skip
  return panorama.image.resize(size, Image.BILINEAR, box=box)


@functools.lru_cache(maxsize=4)
def paint(key, height: int, width: int, *, night: bool) -> Panorama:
  """Paints the panorama of a place.

  Args:
    key: of the place.
    height: of the frames it is for.
    width: of the frames.
    night: whether lamps and windows are lit; the dark itself comes later.
  """
  place = places.build(key)
  view_w, view_h = world.view_size(width / height)
  scale = _SHARPNESS * height / view_h
  half = view_w / 2 + world.PAN + world.MARGIN
  top, bottom = 0.5 - view_h / 2 - world.EDGE_V, 0.5 + view_h / 2
  bottom += world.EDGE_V
  shape = (round((bottom - top) * scale), round(2 * half * scale))
  rng = draws.generator(10, key.seed, key.turn)
  colours = _paint_base(place, shape, -half, top, scale, rng, night=night)
  image = Image.fromarray(_bytes(colours, LAMP - 1))
  plate = walls.Plate(
    ImageDraw.Draw(image), -half, top, scale, place.lens, night
  )
  _paint_objects(plate, place, rng)
  image = _roughen(image, key, scale)
  return Panorama(image, -half, top, scale)


def _bytes(colours: np.ndarray, most: float) -> np.ndarray:
  return np.clip(colours, 0, most).astype(np.uint8)


def _paint_base(place, shape, left, top, scale, rng, *, night) -> np.ndarray:
  """Paints sky and ground, [H, W, 3] float32."""
  height, width = shape
  v = top + (np.arange(height, dtype=np.float32) + 0.5) / scale
  u = left + (np.arange(width, dtype=np.float32) + 0.5) / scale
  rows = int(np.clip(np.searchsorted(v, place.lens.horizon), 0, height))
  colours = np.empty((height, width, 3), np.float32)
  colours[:rows] = _sky(place, u, v[:rows], rng, night=night)
  below = np.maximum(v[rows:] - place.lens.horizon, 1e-3)
  z = (place.lens.focal * place.lens.eye / below)[:, None]
  # Beyond this the haze hides what is there.
  z = np.minimum(z, 400.0)
  x = u[None, :] * z / place.lens.focal
  part = paint_ground(place, x, z, rng)
  part *= 1.0 + 0.05 * field(rng, x, z, 2.5)[..., None]
  if night:
    glow = np.zeros(x.shape, np.float32)
    for lamp_x, lamp_z in place.lamps:
      glow += np.exp(-((x - lamp_x) ** 2 + (z - lamp_z) ** 2) / 7.0)
    part *= (1.0 + 0.9 * glow)[..., None]
  mist = (1.0 - np.exp(-z / place.clarity))[..., None]
  part += mist * (np.asarray(place.haze, np.float32) - part)
  colours[rows:] = part
  return colours


def _sky(place, u, v, rng, *, night: bool) -> np.ndarray:
  """Paints the sky with clouds, [H, W, 3] float32."""
  clear = np.array((104, 150, 208), np.float32)
  low = np.array(place.haze, np.float32)
  if place.weather != "clear":
    clear = low * 0.86
  height = np.clip((place.lens.horizon - v) / 0.5, 0.0, 1.0)[:, None, None]
  sky = low + (clear - low) * height**0.7
  across = np.broadcast_to(u[None, :] * 5.0, (len(v), len(u)))
  down = (v * 16.0)[:, None]
  clouds = sum(
    field(rng, across * rate, down * rate, 1.0) / rate
    for rate in (1.0, 2.0, 4.0, 8.0)
  )
  cover = np.clip(1.4 * clouds + 0.1, 0.0, 1.0)[..., None]
  sky = sky + cover * (np.float32(232.0) - sky) * 0.75
  if night:
    sky = sky * np.array((0.42, 0.45, 0.6), np.float32)
  return sky


def _paint_objects(plate: walls.Plate, place, rng) -> None:
  """Paints what stands on the ground and never hides an actor."""
  lens, plan = place.lens, place.plan
  if isinstance(plan, streets.StreetPlan):
    _paint_trees(plate, place, rng, 130.0, 8.0, 60)
    reach = world.edge_x(lens, plan.houses, 1.0)
    walls.paint_street(plate, rng, plan, streets.FAR_END, reach)
  elif isinstance(plan, greens.ParkPlan):
    for depth, height, number in ((90.0, 12.0, 70), (60.0, 8.0, 60)):
      _paint_trees(plate, place, rng, depth, height, number)
    _paint_statue(plate, rng, plan)
  else:
    _paint_stand(plate, place, rng)


def _paint_trees(plate, place, rng, depth, height, number) -> None:
  reach = world.edge_x(place.lens, depth, 5.0)
  mist = 1.0 - np.exp(-depth / place.clarity)
  hedge = draws.mix((52, 72, 44), place.haze, mist)
  plate.rectangle(-reach, -1.0, reach, height * 0.3, depth, hedge)
  for i in range(number):
    x = -reach + 2 * reach * (i + draws.between(rng, 0.0, 1.0)) / number
    colour = draws.vary(rng, (70, 96, 54), 16)
    top = height * draws.between(rng, 0.25, 0.75)
    plate.disc(x, top, depth, height * draws.between(rng, 0.25, 0.4),
               draws.mix(colour, place.haze, mist))  # fmt: skip


def _paint_statue(plate: walls.Plate, rng, plan) -> None:
  """Paints a stone figure and a kiosk: like a person and a bus, but neither."""
  x, z = -plan.deep_x * 1.6, 17.5
  stone = (166, 164, 156)
  for half, low, high, gain in (
    (0.6, 0.0, 1.1, 0.85), (0.22, 1.1, 1.9, 0.95), (0.28, 1.9, 2.6, 1.0),
  ):  # fmt: skip
    tone = draws.tone(stone, gain)
    plate.rectangle(x - half, low, x + half, high, z, tone)
  plate.disc(x, 2.8, z, 0.16, stone)
  x, z = plan.pond_x * -1.5, 34.0
  colour = draws.vary(rng, (176, 60, 48), 20)
  for half, low, high, paint in (
    (3.2, 0.0, 2.7, colour), (2.8, 1.2, 2.1, (60, 66, 72)),
    (3.6, 2.7, 3.2, (90, 84, 80)),
  ):  # fmt: skip
    plate.rectangle(x - half, low, x + half, high, z, paint)


def _paint_stand(plate: walls.Plate, place, rng) -> None:
  """Paints boards, a stand, its crowd of dots, and the goal."""
  plan = place.plan
  reach = world.edge_x(place.lens, plan.stand + 10.0, 2.0)
  for row in range(14, -1, -1):
    z, y = plan.stand + 0.8 * row, 1.0 + 0.62 * row
    grey = (104 - 2 * row, 106 - 2 * row, 112 - 2 * row)
    plate.rectangle(-reach, 0.0, reach, y, z, grey)
    seats = rng.random(int(2 * reach / 0.75)) < 0.8
    for i in np.flatnonzero(seats):
      x = -reach + 0.75 * (i + 0.3 * rng.random())
      coat = draws.vary(rng, draws.pick(rng, walls.CLOTH), 16)
      plate.disc(x, y + 0.2, z, 0.27, coat, 1.2)
      plate.disc(x, y + 0.62, z, 0.13, (204, 164, 136))
  x, z = -reach, plan.far_line + 2.2
  while x < reach:
    end = x + draws.between(rng, 4.0, 8.0)
    board = draws.vary(rng, draws.pick(rng, walls.CLOTH), 10)
    plate.rectangle(x, 0.0, end, 1.0, z, board)
    for letter in np.arange(x + 0.6, end - 0.6, 0.8):
      plate.rectangle(letter, 0.3, letter + 0.4, 0.7, z, (214, 214, 208))
    x = end
  _paint_goal(plate, plan)


def _paint_goal(plate: walls.Plate, plan) -> None:
  centre = 0.5 * (plan.near_line + plan.far_line)
  back = plan.goal_x + (1.6 if plan.goal_x > 0 else -1.6)
  corners = [
    (plan.goal_x, 0.0, centre - 3.6), (plan.goal_x, 2.4, centre - 3.6),
    (plan.goal_x, 2.4, centre + 3.6), (plan.goal_x, 0.0, centre + 3.6),
  ]  # fmt: skip
  for share in np.linspace(-3.6, 3.6, 9):
    ends = (plan.goal_x, 2.4, centre + share), (back, 0.0, centre + share)
    plate.draw.line([plate.at(*end) for end in ends], (186, 188, 190), 1)
  points = [plate.at(*corner) for corner in corners]
  plate.draw.line(points, (226, 226, 224), max(1, round(plate.scale / 130)))


def _roughen(image: Image.Image, key, scale: float) -> Image.Image:
  """Gives surfaces a grain, leaves lamps alone, and softens the edges."""
  pixels = np.asarray(image)
  height, width = pixels.shape[:2]
  rng = draws.generator(11, key.seed, key.turn)
  rows = (np.arange(height, dtype=np.float32) / scale)[:, None]
  columns = np.arange(width, dtype=np.float32) / scale
  columns = np.broadcast_to(columns[None, :], (height, width))
  grain = sum(
    amplitude * field(rng, columns, rows, rate)
    for rate, amplitude in ((150.0, 0.09), (60.0, 0.05), (9.0, 0.06))
  )
  rough = pixels * (1.0 + grain[..., None])
  rough = np.where(pixels >= LAMP, pixels, np.clip(rough, 0, LAMP - 1))
  image = Image.fromarray(rough.astype(np.uint8))
  return image.filter(ImageFilter.GaussianBlur(0.5 * (scale / 220.0) ** 0.5))


def paint_ground(place, x: np.ndarray, z: np.ndarray, rng) -> np.ndarray:
  """Returns the ground's colours, [H, W, 3] float32."""
  painter = {
    streets.StreetPlan: _street,
    greens.ParkPlan: _park,
    greens.PitchPlan: _pitch,
  }[type(place.plan)]
  colours = painter(place.plan, x, z, rng)
  if place.weather == "rain":
    colours *= 0.8
  elif place.weather == "snow":
    cover = np.clip(2.2 * (field(rng, x, z, 0.35) + 0.1), 0.0, 0.8)
    colours += cover[..., None] * (np.float32(226.0) - colours)
  return colours


def field(rng, x: np.ndarray, z: np.ndarray, rate: float) -> np.ndarray:
  """Returns smooth noise of about -1..1 at rate cells a metre."""
  side = 64
  grid = rng.standard_normal((side, side)).astype(np.float32) * 0.5
  return _sample(grid, x * rate, np.broadcast_to(z * rate, x.shape))


def _sample(grid: np.ndarray, across, down) -> np.ndarray:
  """Samples a periodic grid with linear interpolation."""
  side = len(grid)
  i, j = np.floor(down), np.floor(across)
  a, b = (down - i).astype(np.float32), (across - j).astype(np.float32)
  i, j = i.astype(np.int32) % side, j.astype(np.int32) % side
  i1, j1 = (i + 1) % side, (j + 1) % side
  upper = grid[i, j] * (1 - b) + grid[i, j1] * b
  lower = grid[i1, j] * (1 - b) + grid[i1, j1] * b
  return upper * (1 - a) + lower * a


def _lay(colours: np.ndarray, where: np.ndarray, colour, opacity=1.0) -> None:
  """Lays a colour over part of the ground."""
  where = np.broadcast_to(where, colours.shape[:2])
  old = colours[where]
  colours[where] = old + (np.asarray(colour, np.float32) - old) * opacity


def _street(plan, x, z, rng) -> np.ndarray:
  colours = np.empty((*x.shape, 3), np.float32)
  colours[:] = draws.vary(rng, (96, 96, 100), 8)
  in_side = np.abs(x - plan.side_x) < plan.side_half
  walk = (z < plan.near_kerb) | ((z > plan.far_kerb) & ~in_side)
  paving = draws.pick(rng, ((158, 150, 140), (146, 146, 148), (150, 128, 112)))
  _lay(colours, walk, paving)
  fade = np.clip(9.0 / z, 0.0, 1.0)
  joints = ((x % 0.9) < 0.045) | ((z % 0.8) < 0.05)
  old = colours[np.broadcast_to(walk & joints & (z < 20), x.shape)]
  mask = walk & joints & (z < 20)
  weight = np.broadcast_to(0.24 * fade, x.shape)[mask][:, None]
  colours[mask] = old * (1.0 - weight)
  patches = field(rng, x, z, 0.3) > 0.55
  _lay(colours, patches & ~walk, (72, 72, 76), 0.6)
  _lay(colours, np.abs(z - plan.near_kerb) < 0.12, (186, 184, 178))
  _lay(colours, (np.abs(z - plan.far_kerb) < 0.12) & ~in_side, (186, 184, 178))
  kerb = np.abs(np.abs(x - plan.side_x) - plan.side_half) < 0.12
  _lay(colours, kerb & (z > plan.far_kerb), (180, 178, 172))
  paint = (214, 212, 202)
  dashes = (np.abs(z - plan.middle) < 0.08) & (((x + 50) % 3.0) < 1.7)
  _lay(colours, dashes, paint, 0.85)
  middle = (np.abs(x - plan.side_x) < 0.08) & (z > plan.houses)
  _lay(colours, middle & ((z % 4.0) < 2.2), paint, 0.8)
  zebra = in_side & (np.abs(z - plan.houses + 2.0) < 1.0)
  _lay(colours, zebra & (((x - plan.side_x) % 1.1) < 0.55), paint, 0.85)
  _lay(colours, np.abs(z - plan.near_kerb - 1.15) < 0.05, paint, 0.7)
  for _ in range(4):
    at = draws.between(rng, -8, 8), draws.between(rng, 8.8, 14.5)
    cover = (x - at[0]) ** 2 + (z - at[1]) ** 2 < 0.12
    _lay(colours, cover, (62, 60, 60))
  return colours


def _grass(x, z, rng, colour) -> np.ndarray:
  colours = np.empty((*x.shape, 3), np.float32)
  colours[:] = draws.vary(rng, colour, 10)
  dry = np.clip(0.5 + field(rng, x, z, 0.22), 0.0, 1.0)[..., None]
  colours += dry * np.array((26.0, 10.0, -8.0), np.float32)
  blades = field(rng, x, z, 6.0) * np.clip(5.0 / z, 0.0, 1.0)
  return colours * (1.0 + 0.16 * blades[..., None])


def _park(plan, x, z, rng) -> np.ndarray:
  colours = _grass(x, z, rng, (84, 116, 58))
  bed = (field(rng, x, z, 0.5) > 0.95) & (np.abs(z - 9.6) < 1.0)
  petals = field(rng, x, z, 9.0) > 0.1
  _lay(colours, bed, (58, 84, 44))
  _lay(colours, bed & petals, draws.pick(rng, ((186, 50, 60), (210, 180, 60))))
  gravel = (184, 168, 140)
  edge = 0.12 * field(rng, x, z, 1.2)
  bend = 0.25 * np.sin(0.35 * x)
  for middle, half in ((plan.near_path, plan.half + 0.25),
                       (plan.far_path, plan.half)):  # fmt: skip
    _lay(colours, np.abs(z - middle - bend) < half + edge, gravel)
  share = (z - plan.far_path) / (48.0 - plan.far_path)
  deep = plan.deep_x * (1.0 + 0.7 * share) + 2.2 * share
  way = (np.abs(x - deep) < 1.1 + edge) & (z > plan.far_path) & (z < 60)
  _lay(colours, way, gravel)
  shore = ((x - plan.pond_x) / 8.0) ** 2 + ((z - plan.pond_z) / 4.5) ** 2
  shore += 0.12 * field(rng, x, z, 0.4)
  _lay(colours, shore < 1.12, (128, 116, 84))
  _lay(colours, shore < 1.0, (112, 138, 156))
  ripples = np.broadcast_to(np.sin(9.0 * z + 2.0 * np.sin(x)) > 0.6, x.shape)
  _lay(colours, (shore < 1.0) & ripples, (160, 180, 190), 0.6)
  return colours


def _pitch(plan, x, z, rng) -> np.ndarray:
  colours = _grass(x, z, rng, (62, 122, 56))
  mown = np.floor((x - plan.middle) / 4.5).astype(np.int32) % 2 == 0
  colours *= np.where(mown, 1.07, 0.95)[..., None].astype(np.float32)
  outside = (z < plan.near_line - 0.9) | (z > plan.far_line + 2.0)
  _lay(colours, outside, (150, 84, 66))
  white = (220, 222, 216)
  inside = (z > plan.near_line) & (z < plan.far_line)
  thick = 0.06 + 0.0028 * z
  for line in (plan.near_line, plan.far_line):
    _lay(colours, np.abs(z - line) < thick, white)
  _lay(colours, (np.abs(x - plan.middle) < thick) & inside, white)
  centre = 0.5 * (plan.near_line + plan.far_line)
  ring = np.hypot(x - plan.middle, z - centre)
  _lay(colours, np.abs(ring - 7.0) < 2.0 * thick, white)
  side = np.sign(plan.goal_x)
  _lay(colours, (np.abs(x - plan.goal_x) < thick) & inside, white)
  for deep, wide in ((5.5, 6.0), (13.0, 11.0)):
    front = plan.goal_x - side * deep
    _lay(colours, (np.abs(x - front) < thick) & (np.abs(z - centre) < wide),
         white)  # fmt: skip
    span = (x - front) * side > 0
    span &= (x - plan.goal_x) * side < 0
    _lay(colours, span & (np.abs(np.abs(z - centre) - wide) < thick), white)
  return colours
