"""The rasteriser, and what lies between its picture and the frame.

One drawing has colour and instance number at once.

The canvas is an RGBA image whose fourth byte is no opacity but the number of
the thing drawn last: a fill writes all four bytes, and what is drawn far to
near leaves in every pixel the colour and the number of the frontmost thing.
Behind it come texture and haze, light, weather and the sensor's noise.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ojd.streams.synthetic import draws, world
from ojd.streams.synthetic.world import View

MAX_THINGS = 250
LAMP = 241  # channels from here on shine by themselves: no texture, no night
_TILE = 128
_TEXELS = 70.0  # texels a metre


class Thing(NamedTuple):
  """What the later passes know of one numbered thing."""

  class_id: int
  column: float  # where its texture is anchored, in pixels
  row: float
  texels: float  # texels a pixel
  haze: float  # 0 near, towards 1 far
  gain: float  # of a lamp nearby
  rough: float  # how strong its texture is


class Pen:
  """Draws things, far to near, over a backdrop."""

  def __init__(self, backdrop: Image.Image, view: View, sun: tuple):
    """backdrop: RGB image of the frame's size; sun: ground direction."""
    self.image = backdrop.convert("RGBA")
    self.image.putalpha(0)
    self.view = view
    self.sun = sun
    self.lit = False  # whether lamps are on
    self.things = [Thing(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)]
    self._draw = ImageDraw.Draw(self.image)
    self._number = (0,)

  def begin(
    self, class_id: int, x: float, z: float, *, haze: float, gain: float,
    rough: float,
  ) -> int:  # fmt: skip
    """Starts a new thing at a ground point and returns its number."""
    k, ax, ay, eye = self.view
    scale = k / z
    self.things.append(
      Thing(
        class_id, ax + scale * x, ay + scale * eye, _TEXELS / scale, haze,
        gain, rough,
      )
    )  # fmt: skip
    self.resume(len(self.things) - 1)
    return len(self.things) - 1

  def resume(self, number: int) -> None:
    """Goes on drawing the thing with the number."""
    self._number = (number,)

  def place(self, x: float, z: float, heading: float):
    """Returns put(forward, up, left) -> (column, row) for a body there."""
    k, ax, ay, eye = self.view
    cos, sin = math.cos(heading), math.sin(heading)

    def put(forward: float, up: float, left: float = 0.0):
      q = k / (z + forward * sin + left * cos)
      return ax + q * (x + forward * cos - left * sin), ay + q * (eye - up)

    return put

  def polygon(self, points, colour: draws.Colour) -> None:
    """Fills a polygon of (column, row) points."""
    self._draw.polygon(points, colour + self._number)

  def ellipse(self, column, row, across, down, colour) -> None:
    """Fills an ellipse around a point."""
    self._draw.ellipse(
      (column - across, row - down, column + across, row + down),
      colour + self._number,
    )

  def line(self, points, width: float, colour) -> None:
    """Draws a line of a width in pixels, at least one."""
    self._draw.line(points, colour + self._number, max(1, round(width)))

  def ribbon(self, a, b, c, ra, rb, rc, colour) -> None:
    """Fills a bent limb from a over b to c with half widths ra, rb, rc."""
    ux, uy = _normal(a, b)
    wx, wy = _normal(b, c)
    mx, my = (ux + wx) / 2, (uy + wy) / 2
    (ax, ay), (bx, by), (cx, cy) = a, b, c
    self._draw.polygon(
      (
        ax + ux * ra, ay + uy * ra, bx + mx * rb, by + my * rb,
        cx + wx * rc, cy + wy * rc, cx - wx * rc, cy - wy * rc,
        bx - mx * rb, by - my * rb, ax - ux * ra, ay - uy * ra,
      ),
      colour + self._number,
    )  # fmt: skip


def _normal(a, b):
  dx, dy = b[0] - a[0], b[1] - a[1]
  length = math.hypot(dx, dy) + 1e-6
  return dy / length, -dx / length


@functools.lru_cache(maxsize=1)
def _tile() -> np.ndarray:
  """Returns a periodic noise tile around 256 in fixed point."""
  rng = draws.generator(1)
  total = np.zeros((_TILE, _TILE), np.float32)
  for cell, amplitude in ((1, 0.05), (2, 0.07), (4, 0.07), (16, 0.06)):
    grid = rng.standard_normal((_TILE // cell, _TILE // cell))
    grid = np.pad(grid.astype(np.float32), 2, mode="wrap")
    side = (_TILE // cell + 4) * cell
    smooth = Image.fromarray(grid).resize((side, side), Image.BICUBIC)
    total += (
      amplitude
      * np.asarray(smooth)[2 * cell : -2 * cell][:, 2 * cell : -2 * cell]
    )
  return np.clip(256 * (1.0 + total), 130, 400).astype(np.int32)


def texture(
  image: Image.Image, things: list[Thing], haze: draws.Colour
) -> np.ndarray:
  """Adds texture, haze and lamp light to the things' pixels.

  Args:
    image: RGBA, colour and number.
    things: what the numbers stand for, number 0 the backdrop.
    haze: the colour that distance takes on.

  Returns:
    [H, W, 3] uint8.
  """
  width, height = image.size
  result = np.array(image.convert("RGB")).reshape(-1, 3)
  numbers = np.asarray(image.getchannel("A")).ravel()
  where = np.flatnonzero(numbers)
  if where.size:
    number = numbers[where]
    table = np.array([thing[1:] for thing in things], np.float32)
    rows, columns = np.divmod(where.astype(np.int32), np.int32(width))
    texels = table[:, 2][number]
    across = ((columns - table[:, 0][number]) * texels).astype(np.int32)
    down = ((rows - table[:, 1][number]) * texels).astype(np.int32)
    # Far things show less texture than the tile has: it would only flicker.
    depth = np.clip(1.5 / np.maximum(table[:, 2], 1e-6), 0.0, 1.0)
    depth *= table[:, 5]
    clear = (1.0 - table[:, 3]) * table[:, 4]
    grain = (_tile()[down % _TILE, across % _TILE] - 256).astype(np.float32)
    gain = (1.0 + grain * (depth[number] / 256.0)) * clear[number]
    colour = result[where].astype(np.float32)
    shade = colour * gain[:, None]
    shade += table[:, 3][number][:, None] * np.array(haze, np.float32)
    shade = np.where(colour >= LAMP, colour, np.minimum(shade, LAMP - 1.0))
    result[where] = shade.astype(np.uint8)
  return result.reshape(height, width, 3)


_NIGHT = (0.3, 0.36, 0.5)  # what is left of red, green, blue


def light(image: Image.Image, key, time: float, dark: float) -> Image.Image:
  """Applies the drift of brightness and tint, and the night.

  Channels from LAMP on are lamps: they stay bright however dark it is.
  """
  levels = np.arange(256, dtype=np.float32)
  tables = []
  for gain in light_gains(key, time, dark):
    table = np.minimum(levels, LAMP - 1) * gain
    shine = np.clip((levels - (LAMP - 1)) / (256.0 - LAMP), 0.0, 1.0)
    table += shine * (255.0 - (LAMP - 1) * gain)
    tables.append(np.clip(table, 0, 255).astype(np.uint8))
  return image.point(np.concatenate(tables).tolist())


def light_gains(key, time: float, dark: float) -> tuple[float, ...]:
  """Returns the gain of red, green and blue at a time."""
  sines = _light_sines(key)
  level = 1.0 + draws.sway(sines[0], time)
  warm = draws.sway(sines[1], time)
  day = (level * (1.0 + warm), level, level * (1.0 - warm))
  return tuple(
    gain * (1.0 + (night - 1.0) * dark)
    for gain, night in zip(day, _NIGHT, strict=True)
  )


@functools.lru_cache(maxsize=8)
def _light_sines(key):
  rng = draws.generator(6, key.seed, key.turn)
  return (
    draws.waves(rng, 0.16, (0.021, 0.05, 0.13)),
    draws.waves(rng, 0.06, (0.017, 0.043)),
  )


def bloom(image: Image.Image, dark: float) -> Image.Image:
  """Lets lamps shine beyond their edges when it is dark."""
  width, height = image.size
  small = image.resize((max(1, width // 6), max(1, height // 6)), Image.BOX)
  small = small.point(
    [int(max(0, v - 130) * 1.1 * dark) for v in range(256)] * 3
  )
  small = small.filter(ImageFilter.BoxBlur(max(0.5, height / 190)))
  return ImageChops.add(image, small.resize((width, height), Image.BILINEAR))


def fall(
  image: Image.Image, place: world.Place, time: float, dark: float
) -> Image.Image:
  """Adds falling rain or snow in front of everything."""
  if place.weather not in ("rain", "snow"):
    return image
  width, height = image.size
  layers = []
  for i, layer in enumerate(_drops(place.weather, height, width)):
    speed = (2.2, 1.6)[i] if place.weather == "rain" else (0.35, 0.22)[i]
    slant = 0.2 if place.weather == "rain" else 0.1
    down = round(time * speed * height)
    across = round((time * speed * slant + 0.02 * math.sin(time)) * height)
    left, top = -across % width, -down % height
    layers.append(layer.crop((left, top, left + width, top + height)))
  drops = ImageChops.add(*layers)
  if dark > 0.02:
    drops = drops.point([int(v * (1.0 - 0.6 * dark)) for v in range(256)])
  return ImageChops.add(image, Image.merge("RGB", (drops,) * 3))


@functools.lru_cache(maxsize=4)
def _drops(weather: str, height: int, width: int):
  """Returns two layers of streaks or flakes that join at their edges.

  Each stands there twice in both directions: any crop of a frame's size is the
  layer moved on.
  """
  layers = []
  for layer in range(2):
    rng = draws.generator(7, layer)
    image = np.zeros((height, width), np.uint8)
    number = int((90 if weather == "rain" else 130) * width / height)
    rows = rng.random(number) * height
    columns = rng.random(number) * width
    size = (1.0, 0.6)[layer]
    if weather == "rain":
      length = max(2, int(0.085 * size * height))
      thick = max(1, round(height / 400 * size))
      for step in range(length):
        r = (rows + step).astype(int) % height
        for side in range(thick):
          c = (columns + 0.2 * step + side).astype(int) % width
          image[r, c] = 36
    else:
      radius = max(0.6, 0.006 * size * height)
      reach = range(-math.ceil(radius), math.ceil(radius) + 1)
      for dr in reach:
        for dc in reach:
          if dr * dr + dc * dc <= radius * radius + 0.3:
            image[(rows + dr).astype(int) % height,
                  (columns + dc).astype(int) % width] = 150  # fmt: skip
    layers.append(Image.fromarray(np.tile(image, (2, 2))))
  return tuple(layers)


def sense(image: Image.Image, key, t: int, dark: float) -> Image.Image:
  """Adds the sensor's noise, stronger by night.

  Args:
    image: RGB.
    key: of the place.
    t: index of the frame, from which the noise is drawn.
    dark: 0 by day to 1 by night.
  """
  width, height = image.size
  noise = _noise(height, width, round(2.0 + 4.5 * dark))
  rng = draws.generator(8, key.seed, t)
  left, top = int(rng.integers(_SPARE)), int(rng.integers(_SPARE))
  noise = noise.crop((left, top, left + width, top + height))
  return ImageChops.add(image, noise, 1.0, -128)


_SPARE = 61


@functools.lru_cache(maxsize=4)
def _noise(height: int, width: int, sigma: int) -> Image.Image:
  """Returns grey noise around 128, a little larger than the frame."""
  rng = draws.generator(9, sigma)
  shape = (min(height + _SPARE, 389), min(width + _SPARE, 521), 3)
  tile = np.rint(128.0 + sigma * rng.standard_normal(shape, np.float32))
  tile = np.clip(tile, 0, 255).astype(np.uint8)
  repeats = (
    -(-(height + _SPARE) // shape[0]),
    -(-(width + _SPARE) // shape[1]),
  )
  whole = np.tile(tile, (*repeats, 1))[: height + _SPARE, : width + _SPARE]
  return Image.fromarray(np.ascontiguousarray(whole))
