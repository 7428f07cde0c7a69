"""The panorama behind the actors, painted once for a place and a size."""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ojd.streams.synthetic import (
  camera,
  draws,
  greens,
  ground,
  places,
  streets,
  walls,
)
from ojd.streams.synthetic.pen import LAMP

_SHARPNESS = 1.13  # backdrop pixels a picture pixel, unzoomed: the mean zoom


class Panorama(NamedTuple):
  """A picture of all of the plane that the camera may look at."""

  image: Image.Image
  left: float
  top: float
  scale: float  # pixels a plane unit


def look(panorama: Panorama, window: camera.Window, size) -> Image.Image:
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
  view_w, view_h = camera.view_size(width / height)
  scale = _SHARPNESS * height / view_h
  half = view_w / 2 + camera.PAN + camera.MARGIN
  top, bottom = 0.5 - view_h / 2 - camera.EDGE_V, 0.5 + view_h / 2
  bottom += camera.EDGE_V
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
  part = ground.paint(place, x, z, rng)
  part *= 1.0 + 0.05 * ground.field(rng, x, z, 2.5)[..., None]
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
    ground.field(rng, across * rate, down * rate, 1.0) / rate
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
    reach = camera.edge_x(lens, plan.houses, 1.0)
    walls.paint_street(plate, rng, plan, streets.FAR_END, reach)
  elif isinstance(plan, greens.ParkPlan):
    for depth, height, number in ((90.0, 12.0, 70), (60.0, 8.0, 60)):
      _paint_trees(plate, place, rng, depth, height, number)
    _paint_statue(plate, rng, plan)
  else:
    _paint_stand(plate, place, rng)


def _paint_trees(plate, place, rng, depth, height, number) -> None:
  reach = camera.edge_x(place.lens, depth, 5.0)
  mist = 1.0 - np.exp(-depth / place.clarity)
  plate.polygon(
    ((-reach, -1.0, depth), (reach, -1.0, depth), (reach, height * 0.3, depth),
     (-reach, height * 0.3, depth)),
    draws.mix((52, 72, 44), place.haze, mist),
  )  # fmt: skip
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
    plate.polygon(
      ((x - half, low, z), (x + half, low, z), (x + half, high, z),
       (x - half, high, z)),
      draws.tone(stone, gain),
    )  # fmt: skip
  plate.disc(x, 2.8, z, 0.16, stone)
  x, z = plan.pond_x * -1.5, 34.0
  colour = draws.vary(rng, (176, 60, 48), 20)
  for half, low, high, paint in (
    (3.2, 0.0, 2.7, colour), (2.8, 1.2, 2.1, (60, 66, 72)),
    (3.6, 2.7, 3.2, (90, 84, 80)),
  ):  # fmt: skip
    plate.polygon(
      ((x - half, low, z), (x + half, low, z), (x + half, high, z),
       (x - half, high, z)),
      paint,
    )  # fmt: skip


def _paint_stand(plate: walls.Plate, place, rng) -> None:
  """Paints boards, a stand, its crowd of dots, and the goal."""
  plan = place.plan
  reach = camera.edge_x(place.lens, plan.stand + 10.0, 2.0)
  for row in range(14, -1, -1):
    z, y = plan.stand + 0.8 * row, 1.0 + 0.62 * row
    plate.polygon(
      ((-reach, 0.0, z), (reach, 0.0, z), (reach, y, z), (-reach, y, z)),
      (104 - 2 * row, 106 - 2 * row, 112 - 2 * row),
    )
    seats = rng.random(int(2 * reach / 0.75)) < 0.8
    for i in np.flatnonzero(seats):
      x = -reach + 0.75 * (i + 0.3 * rng.random())
      coat = draws.vary(rng, draws.pick(rng, walls.CLOTH), 16)
      plate.disc(x, y + 0.2, z, 0.27, coat, 1.2)
      plate.disc(x, y + 0.62, z, 0.13, (204, 164, 136))
  x, z = -reach, plan.far_line + 2.2
  while x < reach:
    end = x + draws.between(rng, 4.0, 8.0)
    plate.polygon(
      ((x, 0.0, z), (end, 0.0, z), (end, 1.0, z), (x, 1.0, z)),
      draws.vary(rng, draws.pick(rng, walls.CLOTH), 10),
    )
    for letter in np.arange(x + 0.6, end - 0.6, 0.8):
      plate.polygon(
        ((letter, 0.3, z), (letter + 0.4, 0.3, z), (letter + 0.4, 0.7, z),
         (letter, 0.7, z)),
        (214, 214, 208),
      )  # fmt: skip
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
    amplitude * ground.field(rng, columns, rows, rate)
    for rate, amplitude in ((150.0, 0.09), (60.0, 0.05), (9.0, 0.06))
  )
  rough = pixels * (1.0 + grain[..., None])
  rough = np.where(pixels >= LAMP, pixels, np.clip(rough, 0, LAMP - 1))
  image = Image.fromarray(rough.astype(np.uint8))
  return image.filter(ImageFilter.GaussianBlur(0.5 * (scale / 220.0) ** 0.5))
