"""What happens between the world and the picture: light, weather, sensor."""

import functools
import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ojd.streams.synthetic import draws, world
from ojd.streams.synthetic.pen import LAMP

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
